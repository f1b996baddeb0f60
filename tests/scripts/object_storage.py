"""Datasets, weights and runs on S3, against a server that is not ours (moto): what is read, what is written, what is fetched again,
what is refused and how.

Usage: object_storage.py CROSSFIX CROSSFIX-OBJECT-STORE TEACHER.safetensors OUT
    the program as it is shipped, and built with --features object-store; OUT: made anew
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from checks import check, failures, free_port

plain, program, teacher, work = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]).resolve()
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
BUCKET = "crossfix-test"
port = free_port()
endpoint = f"http://127.0.0.1:{port}"
# The first calls need no credentials: they make the user whom all others must be.
moto = Path(sys.executable).with_name("moto_server")
server = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=(work / "moto.log").open("w"),
                          env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"})
taken = re.compile("AWS_|AZURE_|GOOGLE_|CROSSFIX_")
clean = {name: value for name, value in os.environ.items() if not taken.match(name)}
user = {}


def environment(**more):
    return {**clean, **user, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "CROSSFIX_CACHE": str(work / "cache"), **more}


def run(*words, of=program, **more):
    return subprocess.run([str(word) for word in (of, *words)], capture_output=True, text=True, check=False, env=environment(**more), timeout=120, cwd=work)


def client():
    import boto3  # Comes with moto.

    def call(name):
        return boto3.client(name, endpoint_url=endpoint, region_name="us-east-1",
                            aws_access_key_id=user.get("AWS_ACCESS_KEY_ID", "none"), aws_secret_access_key=user.get("AWS_SECRET_ACCESS_KEY", "none"))

    until = time.monotonic() + 30
    while True:
        try:
            call("iam").create_user(UserName="tester")
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    key = call("iam").create_access_key(UserName="tester")["AccessKey"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    call("iam").put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=json.dumps(document))
    user.update(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    return call("s3")


def upload(s3, folder, prefix):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")


def names(s3, prefix):
    return sorted(row["Key"] for row in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", []))


def fetched(text, url):
    found = re.search(re.escape(url) + r": (\d+) objects, (\d+) of them fetched now", text)
    return tuple(map(int, found.groups())) if found else None


def without_times(text):
    found = json.loads(text)
    found.pop("throughput")
    return found


def tensors(path):
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little"):]


def check_inputs(s3):
    data, model = f"s3://{BUCKET}/areas/pairs", f"s3://{BUCKET}/teacher.safetensors"
    words = ["evaluate", "--no-check", "--device", "cpu", "--json"]
    local = run(*words, "--model", teacher.resolve(), "--data", work / "pairs")
    first = run(*words, "--model", model, "--data", data)
    check("evaluate: data and weights on S3 measure what local ones do", local.returncode == first.returncode == 0
          and without_times(first.stdout) == without_times(local.stdout), first.stderr)
    count = len(names(s3, "areas/pairs/")) - 1  # Without the one that stands for the folder.
    check("the first run fetches everything", fetched(first.stderr, data) == (count, count) and fetched(first.stderr, model) == (1, 1), first.stderr)
    second = run(*words, "--model", model, "--data", data)
    check("the second run fetches nothing", fetched(second.stderr, data) == (count, 0) and fetched(second.stderr, model) == (1, 0), second.stderr)
    rows = (work / "pairs" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    s3.put_object(Bucket=BUCKET, Key="areas/pairs/truth.jsonl", Body="".join(row + "\n" for row in rows[:-1]).encode())
    third = run(*words, "--model", model, "--data", data)
    check("a changed object is noticed, and it alone is fetched", fetched(third.stderr, data) == (count, 1)
          and json.loads(third.stdout)["unmasked"]["count"] == len(rows) - 1, third.stderr + third.stdout)
    for cached in (work / "cache" / "objects").rglob("*"):
        if cached.is_file() and cached.stat().st_size > 1000:
            cached.write_bytes(cached.read_bytes()[:1000])
            break
    fourth = run(*words, "--model", model, "--data", data)
    check("a file of the cache that is cut is fetched again", fourth.returncode == 0 and (fetched(fourth.stderr, data)[1], fetched(fourth.stderr, model)[1]) in [(1, 0), (0, 1)]
          and without_times(fourth.stdout) == without_times(third.stdout), fourth.stderr)
    s3.upload_file(str(work / "pairs" / "truth.jsonl"), BUCKET, "areas/pairs/truth.jsonl")


def check_outputs(s3):
    out = f"s3://{BUCKET}/runs/a"
    words = ["adapt", "--teacher", f"s3://{BUCKET}/teacher.safetensors", "--data", f"s3://{BUCKET}/areas/pairs", "--recipe", "paper", "--force", "--no-check",
             "--device", "cpu", "--set=fit.epochs=3", "--set=fit.checkpoint_every=5"]
    whole = run(*words, "--out", work / "whole")
    check("adapt: reads from S3, writes a folder", whole.returncode == 0, whole.stderr)
    running = subprocess.Popen([program, *words, "--out", out], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=work)
    until = time.monotonic() + 60
    while "runs/a/student.checkpoint.safetensors" not in names(s3, "runs/a/") and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = names(s3, "runs/a/")
    check("a killed run leaves a checkpoint on S3, and nothing that says it was finished",
          "runs/a/student.checkpoint.safetensors" in left and "runs/a/run.json" not in left and "runs/a/student.safetensors" not in left, left)
    # Another machine: nothing in its cache.
    resumed = run(*words, "--out", out, "--resume", CROSSFIX_CACHE=str(work / "elsewhere"))
    check("it is gone on with elsewhere, from what was uploaded", resumed.returncode == 0 and "student: going on after step" in resumed.stderr, resumed.stderr)
    wanted = {f"runs/a/{path.relative_to(work / 'whole')}" for path in (work / "whole").rglob("*") if path.is_file()}
    check("all files of a run are uploaded", set(names(s3, "runs/a/")) == wanted, (names(s3, "runs/a/"), sorted(wanted)))
    s3.download_file(BUCKET, "runs/a/student.safetensors", str(work / "student.safetensors"))
    check("with the bits of a run that was not killed", tensors(work / "student.safetensors") == tensors(work / "whole" / "student.safetensors"))
    check("no staging folder is left", not list((work / "elsewhere" / "staging").iterdir()))
    again = run(*words, "--out", out)
    check("a finished run is not trained over", again.returncode == 1 and "holds a finished run" in again.stderr, again.stderr)
    exported = run("export", "--weights", f"{out}/student.safetensors", "--out", f"s3://{BUCKET}/students/a.onnx", "--licence", "MIT")
    check("a file is uploaded under its name", exported.returncode == 0 and names(s3, "students/") == ["students/a.onnx"], exported.stderr)
    parts = [f"s3://{BUCKET}/parts/{number}.jsonl" for number in (1, 2)]
    measure = ["evaluate", "--model", f"{out}/student.safetensors", "--data", f"s3://{BUCKET}/areas/pairs", "--no-check", "--device", "cpu"]
    made = [run(*measure, "--shard", f"{number}/2", "--out", part) for number, part in enumerate(parts, start=1)]
    merged, one = run(*measure, "--merge", *parts, "--json"), run(*measure, "--json")
    check("shards meet on S3", all(part.returncode == 0 for part in made) and json.loads(merged.stdout) == without_times(one.stdout), merged.stderr)


def check_refusals(s3):
    data = f"s3://{BUCKET}/areas/pairs"

    def told(name, done, *words):
        secret = user["AWS_SECRET_ACCESS_KEY"]
        check(name, done.returncode == 1 and all(word in done.stderr for word in words) and secret not in done.stderr, done.stderr)

    told("wrong credentials", run("check", data, AWS_ACCESS_KEY_ID="AKIAUNKNOWN"), "the store refuses", "AWS_ACCESS_KEY_ID")
    told("a wrong secret", run("check", data, AWS_SECRET_ACCESS_KEY="not-the-one"), "the store refuses", "AWS_SECRET_ACCESS_KEY")
    told("a bucket that is not there", run("check", "s3://no-such-bucket/pairs"), 'there is no bucket "no-such-bucket"')
    told("a prefix that is not there", run("check", f"s3://{BUCKET}/areas/none"), "nothing is there")
    told("a server that is not there", run("check", data, AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}"), data, "error")
    told("another kind of store", run("check", "http://host/pairs"), "no such kind of store")
    told("a query", run("check", f"{data}?X-Amz-Signature=hush"), "environment")
    told("a program without object storage", run("check", data, of=plain), "--features object-store")
    s3.put_object(Bucket=BUCKET, Key="evil/../../up.txt", Body=b"x")
    told("a name that leads out of its folder", run("check", f"s3://{BUCKET}/evil"), "..", "rename or remove")
    check("nothing was written by that", not list(work.glob("**/up.txt")) and not (work / "s3:").exists())


def check_full_disk():
    small = work / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True, check=False).returncode != 0:
        print("        a full disk is not tried: no file system can be mounted here")
        return
    try:
        done = run("check", f"s3://{BUCKET}/areas/pairs", "--object-cache", small)
        check("a full disk", done.returncode == 1 and "is full" in done.stderr and "--object-cache" in done.stderr, done.stderr)
    finally:
        subprocess.run(["umount", small], check=True)


def main():
    made = run("simulate", "--kind", "pairs", "--pairs", 80, "--districts", 1, "--out", work / "pairs", of=plain)
    assert made.returncode == 0, made.stderr
    s3 = client()
    s3.create_bucket(Bucket=BUCKET)
    upload(s3, work / "pairs", "areas/pairs")
    s3.put_object(Bucket=BUCKET, Key="areas/pairs/", Body=b"")  # As consoles make folders.
    s3.upload_file(str(teacher), BUCKET, "teacher.safetensors")
    written = run("simulate", "--kind", "pairs", "--pairs", 20, "--districts", 1, "--out", f"s3://{BUCKET}/made")
    check("a dataset is written to S3", written.returncode == 0 and "made/dataset.toml" in names(s3, "made/"), written.stderr)
    for part in (check_inputs, check_outputs, check_refusals):
        part(s3)
    check_full_disk()


try:
    main()
finally:
    server.terminate()
    server.wait(10)
sys.exit(f"{len(failures)} failed: {failures}" if failures else 0)
