"""The live page of crossfixd, over a drive of the demo played as if it happened now: its routes by Python's HTTP client,
and the page itself in headless Chromium, as a phone and as a desktop, light and dark.

Usage: live_page.py CROSSFIXD DEMO_OUT [SCREENSHOTS]   DEMO_OUT: what `crossfix demo` wrote
                                                       SCREENSHOTS: a folder that keeps the pictures

Chromium is driven over its own pipe (Chrome DevTools Protocol), so nothing else is needed. Without Chromium the HTTP
checks run, and a line says that the browser's were skipped.
"""
import base64
import glob
import http.client
import io
import json
import math
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from PIL import Image

from checks import check, failures, free_port

DRIVE_S = 20
# Names come from the config and from peers, and may be anything.
HOSTILE = '</script><img src=x onerror="window.hacked=1"><b id=injected>'
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def ask(port, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def start(crossfixd, folder, config):
    path = os.path.join(folder, "crossfixd.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(config)
    log = open(os.path.join(folder, "log"), "ab")
    return path, subprocess.Popen([crossfixd, "run", "--config", path], stderr=log, stdout=subprocess.DEVNULL)


def check_http(port):
    status, headers, page = ask(port, "/")
    policy = headers.get("Content-Security-Policy", "")
    check("/ is one HTML page", status == 200 and headers["Content-Type"].startswith("text/html") and b"<canvas" in page, status)
    check("its policy allows its own script only", "default-src 'none'" in policy and "unsafe" not in policy, policy)
    check("it names no other site", not any(part in page for part in (b"http://", b"https://", b"@import")))
    now = json.loads(ask(port, "/now")[2])
    check("/now: a position with its ellipse", now["estimate"]["latitude_deg"] and 0 < now["estimate"]["ellipse_95"]["major_m"] < 50, now["estimate"])
    check("/now: an estimate of this moment", now["estimate"]["age_s"] < 1, now["estimate"]["age_s"])
    check("/now: track and fixes", len(now["track"]) > 20 and len(now["fixes"]) > 5, (len(now["track"]), len(now["fixes"])))
    later = json.loads(ask(port, f"/now?after={now['number']}")[2])
    check("/now?after=: only what is new", len(later["track"]) < 20, len(later["track"]))
    check("/now: sources with their events", now["health"]["sources"][0]["events"] > 100, now["health"]["sources"])
    zoom, tile_px = now["tiles"]["zoom"], now["tiles"]["tile_px"]
    check("/now: who made the tiles", now["tiles"]["attribution"] == "simulated by crossfix", now["tiles"])
    status, headers, frame = ask(port, "/frame.jpg")
    picture = Image.open(io.BytesIO(frame))
    check("/frame.jpg is a small JPEG", status == 200 and picture.format == "JPEG" and max(picture.size) <= 960, picture)
    status, headers, heatmap = ask(port, "/heatmap.png")
    picture = Image.open(io.BytesIO(heatmap))
    opaque = picture.width * picture.height - picture.getchannel("A").histogram()[0]
    check("/heatmap.png is a PNG, opaque in places", status == 200 and 0 < opaque < picture.width * picture.height, (picture, opaque))
    latitude, longitude = now["estimate"]["latitude_deg"], now["estimate"]["longitude_deg"]
    x = int((longitude / 360 + 0.5) * 2**zoom)
    y = int((0.5 - math.asinh(math.tan(math.radians(latitude))) / (2 * math.pi)) * 2**zoom)
    status, headers, tile = ask(port, f"/tiles/{zoom}/{x}/{y}")
    check("the tile under the vehicle", status == 200 and Image.open(io.BytesIO(tile)).size == (tile_px, tile_px), status)
    for path in ("/etc/passwd", "/tiles/../../etc/passwd", f"/tiles/{zoom}/{x}/..%2f..%2fetc%2fpasswd", "/tiles/1/1/1", "/now/", "/.git/config"):
        check(f"{path} is not found", ask(port, path)[0] == 404)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        check(f"{method} is refused", ask(port, "/now", method)[0] == 405)
    check("a foreign name is refused", ask(port, "/now", host="evil.example")[0] == 403)
    check("a name of the config is not", ask(port, "/now", host="vehicle.local:80")[0] == 200)
    squatters = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    for squatter in squatters[::2]:
        squatter.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and never reads
    time.sleep(0.3)
    check("viewers who read nothing keep nobody out", ask(port, "/now")[0] == 200)
    for squatter in squatters:
        squatter.close()


class Browser:
    """Headless Chromium behind its pipe: requests and answers are JSON, each with a zero byte behind it."""

    def __init__(self, program, folder):
        request, self.requests = os.pipe()
        self.answers, answer = os.pipe()

        def wire():
            # Chromium reads on 3 and writes on 4.
            request_copy, answer_copy = os.dup(request), os.dup(answer)
            os.dup2(request_copy, 3)
            os.dup2(answer_copy, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             "--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}/chromium", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(request)
        os.close(answer)
        self.buffer, self.number, self.events = b"", 0, []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one for one in targets if one["type"] == "page")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    session = None

    def read(self, timeout_s=20):
        until = time.monotonic() + timeout_s
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise EOFError("Chromium is gone")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, address, width, height, mobile, dark):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=address)

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def wait_for(self, script, seconds=8):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.value(f"(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()"):
                return True
            time.sleep(0.1)
        return False

    def picture(self, path):
        shot = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with open(path, "wb") as file:
            file.write(shot)
        return Image.open(io.BytesIO(shot)).convert("RGB")

    def close(self):
        self.process.terminate()
        self.process.wait(10)


def colours(picture):
    """How many colours of some frequency there are: few when nothing was drawn."""
    return len([count for count, _ in picture.getcolors(1 << 24) if count > 2])


def pink(picture):
    """Pixels in the heatmap's colour."""
    return sum(count for count, (r, g, b) in picture.getcolors(1 << 24) if r > 150 and b > 90 and g < 70)


def check_shown(browser, port, name, width, height, mobile, dark, shots):
    browser.open(f"http://127.0.0.1:{port}/", width, height, mobile, dark)
    ready = browser.wait_for("document.getElementById('frame').naturalWidth > 0 && map.heatPicture !== null && map.track.length > 20 "
                             "&& document.getElementById('sources').textContent.includes('Hz')")
    check(f"{name}: track, frame and heatmap are loaded", ready, browser.value("document.body.innerText"))
    time.sleep(0.5)  # tiles
    picture = browser.picture(os.path.join(shots, f"{name}.png"))
    text = browser.value("document.body.innerText")
    word = browser.value("document.getElementById('word').textContent")
    check(f"{name}: the state is the first thing", word in ("ok", "degraded", "coasting") and not browser.value("document.getElementById('alarm').textContent"), text)
    check(f"{name}: figures", all(part in text.lower() for part in ("95 % radius", "km/h", "protection radius", "hz", "right")), text)
    wide = browser.value("document.documentElement.scrollWidth")
    check(f"{name}: nothing wider than the screen", wide <= width, wide)
    box = browser.value("(() => { const b = document.getElementById('map').getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()")
    box = [int(edge) for edge in (box[0], box[1], min(box[2], width), min(box[3], height))]
    ground = picture.crop(box)
    check(f"{name}: aerial tiles are drawn", colours(ground) > 200, colours(ground))
    middle = ground.crop((ground.width // 2 - 20, ground.height // 2 - 20, ground.width // 2 + 20, ground.height // 2 + 20))
    arrow = sum(count for count, colour in middle.getcolors(1 << 24) if colour == (0x1C, 0x5F, 0xD1))
    check(f"{name}: the vehicle is in the middle", arrow > 60, arrow)
    with_heatmap = pink(ground)
    browser.value("document.getElementById('heat').click()")
    time.sleep(0.5)
    without = pink(browser.picture(os.path.join(shots, f"{name}-no-heatmap.png")).crop(box))
    check(f"{name}: the heatmap can be switched off", with_heatmap > 3 * without + 50, (with_heatmap, without))
    browser.value("document.getElementById('heat').click()")
    ground_colour = browser.value("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground_colour[4:-1].split(","))
    check(f"{name}: {'dark' if dark else 'light'}", (brightness < 200) == dark, ground_colour)


def check_browser(program, crossfixd, folder, config, port, daemon, shots):
    browser = Browser(program, folder)
    try:
        check_shown(browser, port, "phone-light", 390, 844, True, False, shots)
        check_shown(browser, port, "phone-dark", 390, 844, True, True, shots)
        check_shown(browser, port, "desktop-dark", 1280, 800, False, True, shots)
        check_shown(browser, port, "desktop-light", 1280, 800, False, False, shots)
        told = browser.value("(() => { now.estimate.age_s = 30; show(); return ['alarm', 'word'].map((id) => element(id).textContent).join('|') + '|' + document.body.className; })()")
        check("an old estimate is told, and its state is of the past", re.fullmatch(r"The last estimate is 30 s old\|was \w+\|gone", told), told)
        told = browser.value("(() => { Object.assign(now.estimate, { age_s: 0, state: 'lost', reason: 'no <b>GNSS</b>' }); map.vehicle = null; show();"
                             " return ['word', 'why', 'sign'].map((id) => element(id).textContent).join('|') + '|' + element('figures').textContent; })()")
        check("while lost there is no position and no figure", told.startswith("lost|no <b>GNSS</b>|✕|") and "°" not in told.replace("°)", "") and " m" not in told, told)
        text = browser.value("document.body.textContent")
        check("names of peers are text", HOSTILE in text, text)
        injected = browser.value("window.hacked === 1 || document.getElementById('injected') !== null || document.images.length")
        check("and no elements", injected == 1, injected)
        # The daemon hangs: nothing is answered any more.
        daemon.send_signal(signal.SIGSTOP)
        gone = browser.wait_for("document.getElementById('alarm').textContent.startsWith('No connection')", 8)
        check("a hanging daemon is told", gone and browser.value("document.body.className") == "gone")
        daemon.send_signal(signal.SIGCONT)
        back = browser.wait_for("document.getElementById('alarm').hidden", 8)
        check("and that it is back", back, browser.value("document.getElementById('alarm').textContent"))
        daemon.kill()
        daemon.wait(10)
        gone = browser.wait_for("document.getElementById('alarm').textContent.startsWith('No connection')", 8)
        word = browser.value("document.getElementById('word').textContent")
        check("a dead daemon is told, and no state is shown as if it held", gone and word == "no data", word)
        time.sleep(0.5)
        browser.picture(os.path.join(shots, "gone.png"))
        points = browser.value("map.track.length")
        _, again = start(crossfixd, folder, config)
        try:
            back = browser.wait_for("document.getElementById('alarm').hidden && now && now.estimate", 12)
            fewer = browser.value("map.track.length")
            check("a daemon that was started again is shown from its beginning", back and fewer < points, (points, fewer))
        finally:
            again.terminate()
            again.wait(10)
        foreign, violations, errors = set(), [], []
        for event in browser.events:
            detail = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                url = detail["request"]["url"]
                if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "about:")):
                    foreign.add(url)
            elif event.get("method") == "Log.entryAdded":
                entry = detail["entry"]
                (violations if entry.get("source") == "security" or "Content Security Policy" in entry["text"] else errors).append(entry["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                violations.append(json.dumps(detail["exceptionDetails"]))
        check("it asks nobody else for anything", not foreign, foreign)
        check("its policy is not broken, and its script does not fail", not violations, violations)
    finally:
        browser.close()


def main(crossfixd, demo, shots=None):
    demo = os.path.abspath(demo)
    # The longest, since it is played as if it happened now.
    drive = max(glob.glob(f"{demo}/test/logs/*.mcap"), key=os.path.getsize)
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with tempfile.TemporaryDirectory() as folder:
        shots = shots or folder
        os.makedirs(shots, exist_ok=True)
        port = free_port()
        name = json.dumps(HOSTILE)
        config = (
            f'[tiles]\npath = "{demo}/test/tiles.pmtiles"\n[model]\npath = "{demo}/student.onnx"\n'
            f'[[source]]\nkind = "mcap"\nname = {name}\npath = "{drive}"\n'
            f'[[sink]]\nkind = "page"\nlisten = "127.0.0.1:{port}"\nhosts = ["vehicle.local"]\n'
        )
        path, daemon = start(crossfixd, folder, config)
        began = time.monotonic()
        try:
            time.sleep(2)
            checked = subprocess.run([crossfixd, "--check", path], capture_output=True, text=True, check=False)
            check("--check names the port that is taken, and nothing else", checked.stderr.count("sink[0].listen") == 1 and "1 problem" in checked.stderr, checked.stderr)
            time.sleep(max(0, DRIVE_S - (time.monotonic() - began)))
            check_http(port)
            if program is None:
                print("SKIPPED the page in a browser: no Chromium here (apt-get install chromium); only its HTTP routes were checked", flush=True)
            else:
                check_browser(program, crossfixd, folder, config, port, daemon, shots)
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                check("it ends", daemon.wait(10) == 0)
    print(f"{len(failures)} of the checks failed" if failures else "the page was read")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
