// The map: a canvas in world pixels of the tile set (Web Mercator), north up.

const COLOURS = { ok: "#2fd394", degraded: "#ffc933", coasting: "#ff8a3d" };
const MOST_TILES = 300;
const EARTH_RADIUS_M = 6378137;

function makeMap(canvas, changed) {
  const context = canvas.getContext("2d");
  const map = {
    zoom: 19, tilePx: 256, hasTiles: false,
    centre: null, scale: 2, follow: true, showHeat: true,
    track: [], fixes: [], vehicle: null, heat: null, heatPicture: null,
  };
  const tiles = new Map(); // "x/y" -> image

  map.world = ([latitude, longitude]) => {
    const size = map.tilePx * 2 ** map.zoom;
    const y = 0.5 - Math.asinh(Math.tan(latitude * Math.PI / 180)) / (2 * Math.PI);
    return [(longitude / 360 + 0.5) * size, y * size];
  };
  // The shorter way around the earth, in world pixels.
  const near = (x) => x - map.tilePx * 2 ** map.zoom * Math.round(x / (map.tilePx * 2 ** map.zoom));
  const metresPerPixel = (latitude) =>
    2 * Math.PI * EARTH_RADIUS_M * Math.cos(latitude * Math.PI / 180) / (map.tilePx * 2 ** map.zoom);

  map.setTiles = (description) => {
    const zoom = description ? description.zoom : 19;
    const tilePx = description ? description.tile_px : 256;
    map.hasTiles = Boolean(description);
    if (zoom !== map.zoom || tilePx !== map.tilePx) {
      map.zoom = zoom;
      map.tilePx = tilePx;
      map.centre = null; // it was in pixels of the other zoom
      tiles.clear();
    }
  };
  map.forgetTiles = () => tiles.clear();

  function tile(x, y) {
    const name = `${x}/${y}`;
    let image = tiles.get(name);
    if (image && image.failedAt && performance.now() - image.failedAt > 10000) image = null;
    if (!image) {
      image = new Image();
      const made = image;
      made.onload = () => { made.good = true; changed(); };
      made.onerror = () => { made.failedAt = performance.now(); };
      made.src = `/tiles/${map.zoom}/${name}`;
    }
    // What was used last stands last.
    tiles.delete(name);
    tiles.set(name, image);
    if (tiles.size > MOST_TILES) tiles.delete(tiles.keys().next().value);
    return image.good ? image : null;
  }

  map.zoomBy = (factor, at) => {
    const before = map.scale;
    map.scale = Math.min(16, Math.max(1 / 64, before * factor));
    if (at && map.centre && !map.follow) {
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      const away = [at[0] - width / 2, at[1] - height / 2];
      map.centre = map.centre.map((c, i) => c + away[i] / before - away[i] / map.scale);
    }
    changed();
  };

  map.draw = () => {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const density = Math.min(2, window.devicePixelRatio || 1);
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
    }
    context.setTransform(density, 0, 0, density, 0, 0);
    context.fillStyle = "#23303a";
    context.fillRect(0, 0, width, height);
    const last = map.vehicle ? map.vehicle.place
      : map.track.length ? map.track[map.track.length - 1] : map.fixes[map.fixes.length - 1];
    if (last && (map.follow || !map.centre)) map.centre = map.world(last);
    if (!map.centre) return;
    const screen = (place) => {
      const [x, y] = map.world(place);
      return [near(x - map.centre[0]) * map.scale + width / 2, (y - map.centre[1]) * map.scale + height / 2];
    };
    drawTiles(width, height);
    if (map.showHeat && map.heat && map.heatPicture) {
      const [left, top] = screen([map.heat.north_deg, map.heat.west_deg]);
      const [right, bottom] = screen([map.heat.south_deg, map.heat.east_deg]);
      context.drawImage(map.heatPicture, left, top, right - left, bottom - top);
      context.strokeStyle = "rgba(255, 0, 170, .7)";
      context.lineWidth = 1;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    drawTrack(screen);
    if (map.showHeat && map.heat && map.heatPicture) {
      // Its mode, which may lie under the line.
      context.beginPath();
      context.arc(...screen(map.heat.mode), 9, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = "#ff00aa";
      context.stroke();
    }
    context.lineWidth = 1;
    for (const fix of map.fixes) {
      const [x, y] = screen(fix);
      if (x < -5 || y < -5 || x > width + 5 || y > height + 5) continue;
      context.beginPath();
      context.arc(x, y, 3.5, 0, 2 * Math.PI);
      context.fillStyle = "#ffe14d";
      context.fill();
      context.strokeStyle = "#000";
      context.stroke();
    }
    if (map.vehicle) drawVehicle(screen);
    if (last) drawScaleBar(last[0], width, height);
  };

  function drawTiles(width, height) {
    const side = map.tilePx * map.scale;
    if (!map.hasTiles || side < 48) return;
    const firstX = Math.floor((map.centre[0] - width / 2 / map.scale) / map.tilePx);
    const firstY = Math.floor((map.centre[1] - height / 2 / map.scale) / map.tilePx);
    for (let y = firstY; (y * map.tilePx - map.centre[1]) * map.scale + height / 2 < height; y++) {
      for (let x = firstX; (x * map.tilePx - map.centre[0]) * map.scale + width / 2 < width; x++) {
        if (y < 0) continue;
        const columns = 2 ** map.zoom;
        const image = tile(((x % columns) + columns) % columns, y);
        if (!image) continue;
        const left = (x * map.tilePx - map.centre[0]) * map.scale + width / 2;
        const top = (y * map.tilePx - map.centre[1]) * map.scale + height / 2;
        context.drawImage(image, left, top, side + 0.5, side + 0.5);
      }
    }
  }

  function drawTrack(screen) {
    const points = map.track.slice();
    if (map.vehicle && points.length) points.push([...map.vehicle.place, map.vehicle.state, map.vehicle.joined]);
    const lines = points.map((point) => [screen(point), point[2], point[3]]);
    for (const [wide, colour] of [[6, () => "rgba(0, 0, 0, .65)"], [3.5, (state) => COLOURS[state]]]) {
      context.lineWidth = wide;
      context.lineJoin = context.lineCap = "round";
      for (let at = 1; at < lines.length; at++) {
        const [to, state, joined] = lines[at];
        if (!joined || !(state in COLOURS)) continue;
        context.strokeStyle = colour(state);
        context.beginPath();
        context.moveTo(...lines[at - 1][0]);
        context.lineTo(...to);
        context.stroke();
      }
    }
  }

  function drawVehicle(screen) {
    const { place, ellipse, heading } = map.vehicle;
    const [x, y] = screen(place);
    const pixels = map.scale / metresPerPixel(place[0]);
    const within = (turn_deg, draw) => {
      context.save();
      context.translate(x, y);
      context.rotate(turn_deg * Math.PI / 180);
      context.beginPath();
      draw();
      context.restore();
    };
    const outline = (styles) => {
      for (const [wide, colour] of styles) {
        context.lineWidth = wide;
        context.strokeStyle = colour;
        context.stroke();
      }
    };
    const axes = ellipse && [ellipse.major_m, ellipse.minor_m].map((axis_m) => Math.max(1, axis_m * pixels));
    if (ellipse) {
      within(ellipse.orientation_deg - 90, () => {
        context.ellipse(0, 0, ...axes, 0, 0, 2 * Math.PI);
        context.fillStyle = "rgba(120, 190, 255, .22)";
        context.fill();
      });
    }
    within(heading ?? 0, () => {
      if (heading === null) {
        context.arc(0, 0, 9, 0, 2 * Math.PI); // which way it points is not known
      } else {
        context.moveTo(0, -26);
        context.lineTo(13, 16);
        context.lineTo(0, 8);
        context.lineTo(-13, 16);
      }
      context.closePath();
      context.fillStyle = "#1c5fd1";
      context.fill();
      context.lineJoin = "round";
      outline([[2.5, "#fff"]]);
    });
    // Its outline lies over the arrow, for it is often the smaller of the two.
    if (ellipse) {
      within(ellipse.orientation_deg - 90, () => {
        context.ellipse(0, 0, ...axes, 0, 0, 2 * Math.PI);
        outline([[3.5, "rgba(0, 0, 0, .6)"], [1.8, "#fff"]]);
      });
    }
  }

  function drawScaleBar(latitude, width, height) {
    const metre = map.scale / metresPerPixel(latitude);
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
    const length = steps.find((step) => step * metre >= 60) || 20000;
    const [right, bottom] = [width - 12, height - 10];
    const left = right - length * metre;
    context.lineCap = "butt";
    for (const [wide, colour] of [[5, "rgba(0, 0, 0, .7)"], [2, "#fff"]]) {
      context.lineWidth = wide;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(left, bottom - 6);
      context.lineTo(left, bottom);
      context.lineTo(right, bottom);
      context.lineTo(right, bottom - 6);
      context.stroke();
    }
    const text = length >= 1000 ? `${length / 1000} km` : `${length} m`;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 3;
    context.strokeStyle = "rgba(0, 0, 0, .8)";
    context.strokeText(text, (left + right) / 2, bottom - 8);
    context.fillStyle = "#fff";
    context.fillText(text, (left + right) / 2, bottom - 8);
  }

  // One pointer moves the map, two scale it.
  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before || !map.centre) return;
    const now = [event.offsetX, event.offsetY];
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    pointers.set(event.pointerId, now);
    if (other) {
      const apart = (point) => Math.max(10, Math.hypot(point[0] - other[1][0], point[1] - other[1][1]));
      map.zoomBy(apart(now) / apart(before), other[1]);
      return;
    }
    map.centre = map.centre.map((c, i) => c - (now[i] - before[i]) / map.scale);
    map.setFollow(false);
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    map.zoomBy(2 ** (-event.deltaY / 300), [event.offsetX, event.offsetY]);
  }, { passive: false });
  new ResizeObserver(changed).observe(canvas);
  return map;
}
