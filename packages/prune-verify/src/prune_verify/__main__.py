"""`python -m prune_verify ORIGINAL SMALL CERTIFICATE`, where numpy is all there is."""

import sys

from prune_verify.checker import Rejected, check

USAGE = "usage: python -m prune_verify ORIGINAL.safetensors SMALL.safetensors CERTIFICATE.json"


def main(arguments: list[str]) -> int:
    """Check a certificate and print the verdict: 0 if it holds, 1 if not, 2 if called wrongly."""
    if len(arguments) != 3:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        verdict = check(*arguments)
    except Rejected as error:
        print(f"NOT PROVED. {error}", file=sys.stderr)
        return 1
    print(f"PROVED, in {verdict.steps} steps: the small model computes what the original does.")
    for each in verdict.assumptions:
        print(f"- {each}")
    if verdict.longest:
        print(
            f"- In a sum of n products (the longest has n = {verdict.longest}) another order "
            "changes the result by at most 2 n u / (1 - n u) of the sum of their sizes, where u is "
            "the rounding unit of the type (6e-8 for float32)."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
