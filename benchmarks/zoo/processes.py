"""Work on each model of the zoo in a process of its own, and what became of it in a file."""

import json
import multiprocessing
import resource
import traceback


def read(file):
    """The last row of every model."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["model"]: row for row in map(json.loads, lines)}


def in_a_process(task, options):
    """Return the row that a task makes; it can neither hang nor exhaust anything but itself."""
    mother = multiprocessing.get_context("fork")
    reader, writer = mother.Pipe(duplex=False)
    child = mother.Process(target=_work, args=(task, options.gigabytes, writer))
    child.start()
    writer.close()
    try:
        if not reader.poll(options.seconds):
            return {"status": "failed", "reason": f"took longer than {options.seconds} s"}
        return reader.recv()
    except EOFError:
        child.join()
        return {"status": "failed", "reason": f"the process ended with code {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _work(task, gigabytes, writer):
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        row = task()
    except Exception as error:  # a row of the table, not the end of it
        traceback.print_exc()
        row = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    writer.send(row)
