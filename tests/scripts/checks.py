"""What the scripts of this folder that drive our programs have in common."""
import socket

failures = []


def check(name, good, seen=None):
    """Says whether something holds, with what was seen where it does not."""
    print(f"{'ok' if good else 'FAILED':<7} {name}" + ("" if good else f": {seen!r:.1500}"), flush=True)
    if not good:
        failures.append(name)


def free_port():
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
