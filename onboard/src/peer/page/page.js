// The page: asks /now a few times a second while it is looked at, and shows the answer. All text of others
// is put in as text.

const EVERY_MS = 250;
const PATIENCE_MS = 3000;
const GONE_S = 2.5; // without an answer for so long, the daemon is gone
const OLD_S = 2; // an older estimate is no position
const MOST_POINTS = 6000;
const SIGNS = { ok: "✓", degraded: "!", coasting: "≈", lost: "✕" };

const element = (id) => document.getElementById(id);
let frameDue = false;
const map = makeMap(element("canvas"), () => {
  if (frameDue) return;
  frameDue = true;
  requestAnimationFrame(() => { frameDue = false; map.draw(); });
});

let now = null; // the last answer
let answeredAt = null; // when it came
let lookedAtSince = performance.now();
let session = null;
let shown = { frame: 0, heatmap: 0 };
const rates = new Map(); // source -> [events, when, rate, when the last event came]
const SILENT_S = 5;
// From this error on no arrow is drawn, as NMEA names no course (0.6 rad).
const WORST_HEADING_DEG = 34;

const text = (id, words) => { if (element(id).textContent !== words) element(id).textContent = words; };
const number = (value, digits = 0) => Number.isFinite(value) ? value.toFixed(digits) : "–";
const span = (seconds) => seconds < 10 ? `${seconds.toFixed(1)} s`
  : seconds < 120 ? `${Math.round(seconds)} s`
  : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
const date = (time_ns) => {
  const time = new Date(time_ns / 1e6);
  return Number.isFinite(time.getTime()) ? time.toISOString().replace("T", " ").slice(0, 21) : "–";
};
const count = (value) => value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : String(value);

let asking = false;

async function ask() {
  if (asking) return; // two answers to one question would draw the same way twice
  asking = true;
  const cancel = new AbortController();
  const timer = setTimeout(() => cancel.abort(), PATIENCE_MS);
  try {
    const after = now && session ? now.number : 0;
    const answer = await fetch(`/now?after=${after}`, { signal: cancel.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    take(await answer.json(), after);
  } catch {
    // That nothing came shows in the time since the last answer.
  } finally {
    clearTimeout(timer);
    asking = false;
  }
}

function take(answer, after) {
  if (answer.session !== session) {
    // The daemon was started again: what was shown belongs to another drive.
    const foreign = session !== null && after > 0;
    session = answer.session;
    map.track = [];
    map.fixes = [];
    map.heat = map.heatPicture = null;
    map.forgetTiles();
    shown = { frame: 0, heatmap: 0 };
    rates.clear();
    if (foreign) {
      now = null;
      return;
    }
  }
  map.track = map.track.concat(answer.track).slice(-MOST_POINTS);
  map.fixes = map.fixes.concat(answer.fixes).slice(-MOST_POINTS);
  map.setTiles(answer.tiles);
  now = answer;
  answeredAt = performance.now();
  const estimate = answer.estimate;
  const last = map.track[map.track.length - 1];
  map.vehicle = estimate && estimate.state !== "lost" ? {
    place: [estimate.latitude_deg, estimate.longitude_deg],
    heading: Number.isFinite(estimate.heading_sigma_deg) && estimate.heading_sigma_deg < WORST_HEADING_DEG
      ? estimate.heading_deg : null,
    ellipse: estimate.ellipse_95,
    state: estimate.state,
    joined: Boolean(last) && last[2] !== "lost",
  } : null;
  askPicture("frame", answer.frame, "/frame.jpg", (image) => {
    element("frame").src = image.src;
    element("frame").hidden = false;
  });
  askPicture("heatmap", map.showHeat ? answer.heatmap : null, "/heatmap.png", (image, of) => {
    map.heat = of;
    map.heatPicture = image;
  });
  show();
}

// Loads a picture when there is a newer one and the last one has come.
function askPicture(name, of, path, use) {
  if (!of || of.number === shown[name] || shown[`${name} asked`]) return;
  shown[`${name} asked`] = true;
  const image = new Image();
  const done = (good) => {
    setTimeout(() => { shown[`${name} asked`] = false; }, 300);
    if (good || name === "frame") shown[name] = of.number; // a heatmap that was another one is asked for again
    shown[`${name} failed`] = !good;
    if (good) use(image, of);
    map.draw();
  };
  image.onload = () => done(true);
  image.onerror = () => done(false);
  image.src = `${path}?${session}-${of.number}`;
}

function show() {
  const at_ms = performance.now();
  const silent_s = (at_ms - (answeredAt ?? lookedAtSince)) / 1000;
  const estimate = now && now.estimate;
  const age_s = estimate ? estimate.age_s + silent_s : null;
  // Nothing is asked while nobody looks, so that time does not count.
  const gone = Math.min(silent_s, (at_ms - lookedAtSince) / 1000) > GONE_S;
  const old = !gone && age_s !== null && age_s > OLD_S;
  const alarm = gone ? `No connection to crossfixd for ${span(silent_s)}${now ? ": what you see is old" : ""}`
    : old ? `The last estimate is ${span(age_s)} old` : "";
  text("alarm", alarm);
  element("alarm").hidden = !alarm;
  const state = estimate ? estimate.state : "waiting";
  document.body.className = gone || old ? "gone" : state;
  text("sign", gone ? "?" : SIGNS[state] || "…");
  text("word", gone ? "no data" : old ? `was ${state}` : state);
  const reasons = (now && now.health && now.health.reasons) || [];
  text("why", !now ? "asking crossfixd" : !estimate ? reasons[0] || "no estimate yet"
    : gone ? `before: ${[state, estimate.reason].filter(Boolean).join(", ")}` : estimate.reason);
  text("age", age_s === null ? "–" : `${span(age_s)} ago`);
  if (!now) return;
  showFigures(estimate);
  const frame = now.frame;
  text("frame-age", !frame ? "no camera frame yet"
    : shown["frame failed"] ? `${frame.source}: the last frame cannot be read`
    : `${frame.source}, ${span(frame.age_s + silent_s)} ago`);
  showReasons(reasons, estimate);
  showSources(now.health);
  showCore(now.health);
  showShadow(now.health && now.health.shadow);
  showSinks(now.health);
  const tiles = now.tiles;
  text("credit", tiles ? `${tiles.attribution}, ${tiles.capture_date}` : `no aerial tiles: ${now.tiles_problem}`);
  text("foot", `crossfixd ${now.version} · read-only · positions are personal data`);
  map.draw();
}

function showFigures(estimate) {
  const known = estimate && estimate.state !== "lost";
  const ellipse = known ? estimate.ellipse_95 : null;
  const rows = [
    ["95 % radius", ellipse ? `${number(ellipse.radius_m, 1)} m` : "–"],
    ["protection radius", known ? `${number(estimate.protection_radius_m, 1)} m` : "–"],
    ["speed", known ? `${number(estimate.speed_mps * 3.6)} km/h` : "–"],
    ["heading", known ? `${number(estimate.heading_deg)}° ± ${number(estimate.heading_sigma_deg, estimate.heading_sigma_deg < 9.95 ? 1 : 0)}°` : "–"],
    ["modes", known ? String(estimate.mode_count) : "–"],
    ["resets", estimate ? String(estimate.reset_count) : "–"],
    ["latitude, longitude (WGS 84)",
      known ? `${number(estimate.latitude_deg, 6)}°, ${number(estimate.longitude_deg, 6)}°` : "–"],
    ["time (UTC)", estimate ? date(estimate.time_ns) : "–"],
  ];
  const list = element("figures");
  rows.forEach(([name, value], at) => {
    let row = list.children[at];
    if (!row) {
      row = document.createElement("div");
      row.className = at > 5 ? "wide" : "";
      row.append(document.createElement("dt"), document.createElement("dd"));
      row.children[0].textContent = name;
      list.append(row);
    }
    row.children[1].textContent = value;
  });
}

function showReasons(reasons, estimate) {
  const others = reasons.filter((reason) => !estimate || reason !== estimate.reason);
  element("reasons").hidden = others.length === 0;
  element("reasons").querySelector("ul").replaceChildren(...others.map((reason) => {
    const item = document.createElement("li");
    item.textContent = reason;
    return item;
  }));
}

// Fills a table: rows of [class, cells].
function fill(id, rows) {
  element(id).querySelector("tbody").replaceChildren(...rows.map(([kind, cells]) => {
    const row = document.createElement("tr");
    row.className = kind;
    for (const words of cells) {
      const cell = document.createElement("td");
      if (cells.length === 1) cell.colSpan = 4;
      cell.textContent = words;
      row.append(cell);
    }
    return row;
  }));
}

function rate(source, at_ms) {
  const before = rates.get(source.name);
  if (!before || source.events < before[0]) {
    rates.set(source.name, [source.events, at_ms, null, at_ms]);
    return "–";
  }
  if (at_ms - before[1] >= 2000) {
    const hz = (source.events - before[0]) * 1000 / (at_ms - before[1]);
    rates.set(source.name, [source.events, at_ms, hz, hz > 0 ? at_ms : before[3]]);
  }
  const [, , hz, heard_ms] = rates.get(source.name);
  const silent_s = (at_ms - heard_ms) / 1000;
  if (silent_s > SILENT_S) return `silent ${span(silent_s)}`;
  return hz === null ? "–" : `${number(hz, hz < 10 ? 1 : 0)} Hz`;
}

function showSources(health) {
  const rows = ((health && health.sources) || []).flatMap((source) => {
    const clock = source.clocks.find((one) => one.problem) || source.clocks[0];
    const clocks = !clock ? "–" : clock.state === "right" ? "right" : `${clock.state} ${number(clock.offset_s, 2)} s`;
    const problems = [source.error, ...source.clocks.map((one) => one.problem)].filter(Boolean);
    const comes = rate(source, health.time_ns / 1e6);
    return [
      [source.up && !problems.length && !comes.startsWith("silent") ? "good" : "bad",
        [source.name, comes, count(source.events), clocks]],
      ...problems.map((problem) => ["note", [problem]]),
      ...(source.remark ? [["hint", [source.remark]]] : []),
    ];
  });
  fill("sources", rows);
}

function showCore(health) {
  if (!health) return;
  const core = health.core;
  fill("core", [
    ["", ["fixes used / not", `${count(core.fixes)} / ${count(core.fixes_unused)}`]],
    ["", ["odometry used / not", `${count(core.odometry)} / ${count(core.odometry_unused)}`]],
    ["", ["frames matched / not usable", `${count(core.frames)} / ${count(core.frames_unused)}`]],
    ["", ["frames near the last / skipped / dropped", `${count(core.frames_near)} / ${count(core.frames_skipped)} / ${count(health.frames_dropped)}`]],
    ["", ["stamps doubted / restarts", `${count(core.times_doubted)} / ${count(core.restarts)}`]],
    ["", ["events / estimates", `${count(health.events)} / ${count(health.estimates)}`]],
  ]);
}

// The student in shadow mode, beside the one in use.
function showShadow(shadow) {
  element("shadow").hidden = !shadow;
  if (!shadow) return;
  const metres = (value) => value === null ? "–" : `${number(value, 2)} m`;
  const gain = shadow.gain === null ? "–"
    : `${shadow.gain < 0 ? "−" : "+"}${number(Math.abs(shadow.gain), 2)} ± ${shadow.gain_sigma === null ? "?" : number(shadow.gain_sigma, 2)}`;
  fill("shadows", [
    [shadow.up && !shadow.error ? "good" : "bad", [shadow.model.split("/").pop(), shadow.up ? shadow.verdict : "does not run"]],
    ...(shadow.error ? [["note", [shadow.error]]] : []),
    ["", ["frames compared / failed / skipped", `${count(shadow.compared)} / ${count(shadow.failed)} / ${count(shadow.skipped)}`]],
    ["", ["log-likelihood against the one in use", gain]],
    ["", ["mode off the fused position / in use", `${metres(shadow.shadow.mode_off_m)} / ${metres(shadow.running.mode_off_m)}`]],
    ["", ["modes apart", metres(shadow.modes_apart_m)]],
  ]);
}

function showSinks(health) {
  fill("sinks", ((health && health.sinks) || []).flatMap((sink) => [
    [sink.up && !sink.error ? "good" : "bad",
      [sink.name, count(sink.written), count(sink.dropped), sink.clients ? String(sink.clients.connected) : "–"]],
    ...(sink.error ? [["note", [sink.error]]] : []),
  ]));
}

map.setFollow = (follow) => {
  map.follow = follow;
  element("follow").setAttribute("aria-pressed", follow);
};
element("follow").addEventListener("click", () => { map.setFollow(!map.follow); map.draw(); });
element("heat").addEventListener("click", () => {
  map.showHeat = !map.showHeat;
  element("heat").setAttribute("aria-pressed", map.showHeat);
  map.draw();
});
element("in").addEventListener("click", () => map.zoomBy(2));
element("out").addEventListener("click", () => map.zoomBy(0.5));

// Nobody is asked anything while nobody looks.
async function round() {
  if (!document.hidden) await ask();
  setTimeout(round, EVERY_MS);
}
document.addEventListener("visibilitychange", () => {
  lookedAtSince = performance.now();
  if (!document.hidden) ask();
});
setInterval(show, 200);
round();
