#!/usr/bin/env bash
# Everything that wants a GPU, in one call: tests, benchmarks, then as many headline stages as fit.
#
#     DATA=path/to/cifar10 OUT=results scripts/on_device.sh [SECONDS]
#
# The machine needs Python with torch for CUDA, and no network. All of it ends within SECONDS (540
# unless given). What is missing there is taken from .device-wheels/, filled before on a machine with
# a network by
#
#     python -m pip download --no-deps --only-binary=:all: -d .device-wheels \
#         pluggy packaging pyyaml safetensors pytest pluggy iniconfig \
#         torch-pruning stable-baselines3 gymnasium farama-notifications cloudpickle optuna
#
# (with --python-version and --platform if that machine is of another kind). Results are written to
# $OUT as they come: machine.txt, tests.xml, tests.txt, gpu.csv, results.jsonl, headline.txt. With
# DRY=1 the same goes through the processor, in a small size.
set -uo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
limit=${1:-540}
OUT=${OUT:-results}
DATA=${DATA:-}
WORK=${WORK:-${TMPDIR:-/tmp}/prune-on-device}
python=${PYTHON:-python3}
mkdir -p "$OUT" "$WORK"
OUT=$(cd "$OUT" && pwd)
export PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
left() { echo $((limit - (SECONDS - began))); }

# What this Python lacks comes from the wheels; what it has stays, torch above all.
if compgen -G ".device-wheels/*.whl" >/dev/null; then
    for wheel in .device-wheels/*.whl; do
        name=$(basename "$wheel" | cut -d- -f1)
        "$python" -c "import importlib.metadata as m; m.version('$name')" 2>/dev/null ||
            "$python" -m pip install -q --no-index --no-deps --no-compile --target "$WORK/site" "$wheel"
    done
    export PYTHONPATH="$WORK/site${PYTHONPATH:+:$PYTHONPATH}"
fi
known=$("$python" scripts/from_source.py "$WORK/known") || exit 1
eval "$known"

"$python" - <<'END' | tee "$OUT/machine.txt"
import platform, torch
print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
for name in ("pytest", "torchvision", "transformers", "torch_pruning", "stable_baselines3", "PIL"):
    try:
        __import__(name)
    except Exception as error:
        print(f"{name}: not usable: {error}"[:200])
END

if [ -n "${DRY:-}" ]; then
    export PRUNE_TEST_CUDA=cpu
    bench="--device cpu --quick --networks ResNet-18"
    scale="--scale small --device cpu --effort 0.1"
else
    bench="--device cuda"
    scale="--scale full --device cuda"
fi

# At most a third of the time each for tests and for benchmarks.
timeout $((limit / 3)) "$python" -m pytest tests/cuda -q -rs -p no:cacheprovider \
    --junitxml="$OUT/tests.xml" 2>&1 | tee "$OUT/tests.txt" | tail -n 40
timeout $((limit / 3)) "$python" benchmarks/gpu.py $bench --csv "$OUT/gpu.csv" \
    --seconds $((limit / 4)) 2>&1 | tee "$OUT/gpu.txt" | tail -n 80

# The most wanted first; nothing is begun that does not fit into what is left. One process, so that
# images are read once. Networks are kept in $WORK, which a second call finds while the machine lasts.
stages=${STAGES:-agp resnet56 criteria l1 slim resnet56-sparse lottery searches}
if [ -n "$DATA" ]; then
    timeout -k 2 "$(left)" "$python" -m benchmarks.headline run $stages --data "$DATA" \
        --out "$WORK/headline" --results "$OUT/results.jsonl" $scale \
        --seconds "$(($(left) - 15))" 2>&1 | tee "$OUT/headline.txt" | tail -n 60
else
    echo "No DATA, so no headline stages." | tee "$OUT/headline.txt"
fi
echo "Done in $((SECONDS - began)) s; results are in $OUT."
