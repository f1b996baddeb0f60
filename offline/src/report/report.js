"use strict";
// Which map to look at: side by side, or one model alone.
for (const group of document.querySelectorAll("[data-toggle]")) {
  const target = document.getElementById(group.dataset.toggle);
  group.hidden = false;
  group.addEventListener("click", (event) => {
    const show = event.target.dataset.show;
    if (show === undefined) return;
    for (const button of group.children) button.setAttribute("aria-pressed", button === event.target);
    for (const part of target.children) part.hidden = show !== "all" && part.dataset.part !== show;
  });
}
// The replay of the drive: markers, ellipses and a cursor follow the slider.
const source = document.getElementById("drive-data");
if (source) {
  const drive = JSON.parse(source.textContent);
  const root = document.getElementById("drive-replay");
  const slider = root.querySelector("input[type=range]");
  const play = root.querySelector(".play");
  const clock = root.querySelector(".clock");
  const readout = root.querySelector(".readout");
  const cursor = root.querySelector(".cursor");
  const now = root.querySelector(".now");
  const STALE_S = 3; // a marker older than this fades
  root.querySelector(".scrubber").hidden = false;
  readout.hidden = false;

  const latest = (times, t) => {
    let low = 0, high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= t) low = middle + 1; else high = middle;
    }
    return low - 1;
  };
  const add = (parent, tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    parent.append(element);
  };
  const show = () => {
    const t = Number(slider.value);
    clock.textContent = t.toFixed(1) + " s";
    now.removeAttribute("hidden");
    readout.replaceChildren();
    drive.tracks.forEach((track, index) => {
      const marker = now.querySelector(`[data-track="${index}"]`);
      const i = latest(track.t, t);
      marker.style.display = i < 0 ? "none" : "";
      if (i < 0) return;
      const stale = t - track.t[i] > STALE_S;
      marker.classList.toggle("stale", stale);
      marker.setAttribute("transform", `translate(${track.x[i]} ${track.y[i]})`);
      const ellipse = marker.querySelector("ellipse");
      const axes = track.ellipse && track.ellipse[i];
      ellipse.setAttribute("rx", axes ? axes[0] : 0);
      ellipse.setAttribute("ry", axes ? axes[1] : 0);
      if (axes) ellipse.setAttribute("transform", `rotate(${axes[2]})`);
      const error = track.error[i];
      const parts = [];
      if (error !== null) parts.push(`error ${error.toFixed(2)} m`);
      if (axes && axes[3] !== null) parts.push(`95 % radius ${axes[3].toFixed(2)} m`);
      if (track.state && track.state[i] !== null) parts.push(drive.states[track.state[i]]);
      if (stale) parts.push(`${(t - track.t[i]).toFixed(0)} s old`);
      if (parts.length === 0) return;
      if (readout.hasChildNodes()) add(readout, "span", "  ·  ");
      add(readout, "b", track.name);
      add(readout, "span", " " + parts.join(", "));
    });
    if (cursor) {
      const left = Number(cursor.dataset.left), right = Number(cursor.dataset.right);
      const share = drive.end > drive.start ? (t - drive.start) / (drive.end - drive.start) : 0;
      cursor.setAttribute("transform", `translate(${left + share * (right - left)} 0)`);
      cursor.removeAttribute("hidden");
    }
  };

  // The whole drive in 30 seconds, or in its own time when it is shorter.
  const rate = Math.max(1, (drive.end - drive.start) / 30);
  let before = null;
  const tick = (stamp) => {
    if (before === null) return;
    const t = Number(slider.value) + (stamp - before) / 1000 * rate;
    before = stamp;
    slider.value = Math.min(t, drive.end);
    show();
    if (t < drive.end) requestAnimationFrame(tick); else stop();
  };
  const stop = () => { before = null; play.textContent = "▶"; };
  play.addEventListener("click", () => {
    if (before !== null) { stop(); return; }
    if (Number(slider.value) >= Number(slider.max) - 0.05) slider.value = slider.min;
    play.textContent = "❚❚";
    before = performance.now();
    requestAnimationFrame(tick);
  });
  slider.step = "any";
  slider.addEventListener("input", show);
  slider.value = drive.start + 0.5 * (drive.end - drive.start);
  show();
}
