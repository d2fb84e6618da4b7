// Texts as points of a map.

function showMap({ texts, vectors }) {
  const width = $("map").clientWidth;
  // Behind another tab it has no size.
  if (!width) return;
  const height = Math.min(width * 0.75, 420);
  const { points, shown } = plane(vectors);
  const dots = placed(points, width, height);
  const labels = placeLabels(dots, texts.map((text, i) => shortened(text, i, width < 420 || texts.length > 16)), width, height);
  const marks = texts.map((text, i) => mark(`${i + 1}: ${text}`, dots[i], labels[i]));
  const name = `Map of ${count(texts.length, "text")}: what is alike is near.`;
  $("map").replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name }, ...marks));
  const caption = `What is alike is near. The two principal components show ${Math.round(shown * 100)} % of the variance.`;
  // One point varies in nothing.
  $("map-caption").textContent = texts.length > 1 ? caption : "";
}

function mark(title, { x, y }, { box, part, text }) {
  const anchor = { 0: "start", 0.5: "middle", 1: "end" }[part];
  const label = svg("text", { x: box.x + part * box.w, y: box.y + 12, "text-anchor": anchor }, text);
  return svg("g", {}, svg("title", {}, title), svg("circle", { cx: x, cy: y, r: 6 }), label);
}

/** Points in a picture, at one scale for both directions. */
function placed(points, width, height) {
  const MARGIN = 28;
  const axes = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [low, high] = [axes.map((a) => Math.min(...a)), axes.map((a) => Math.max(...a))];
  const room = [width, height].map((size, axis) => (size - 2 * MARGIN) / Math.max(high[axis] - low[axis], 1e-9));
  const scale = Math.min(...room, 1e6);
  const at = (point, axis, size) => size / 2 + (point[axis] - (low[axis] + high[axis]) / 2) * scale;
  return points.map((point) => ({ x: at(point, 0, width), y: at(point, 1, height) }));
}

/** What stands beside a dot: where there is no room for words, a number. */
function shortened(text, i, isNumber) {
  const start = [...text].slice(0, isNumber ? 0 : 24).join("").trim();
  return `${i + 1} ${start}${start && start.length < text.length ? "…" : ""}`.trim();
}

// Where a label may begin, be centred or end beside its dot.
const SIDES = [[0, 10, -8], [1, -10, -8], [0.5, 0, 8], [0.5, 0, -24], [0, 7, 5], [0, 7, -20], [1, -7, 5], [1, -7, -20]];

/** Labels, each on the side of its dot where it covers the least of what is there already. */
function placeLabels(dots, texts, width, height) {
  const taken = dots.map(({ x, y }) => ({ x: x - 6, y: y - 6, w: 12, h: 12 }));
  const cost = ({ box }) => taken.reduce((sum, other) => sum + overlap(box, other), 20 * outside(box, width, height));
  return dots.map(({ x, y }, i) => {
    // No text is measured: letters of the system's font are at most about so wide.
    const w = texts[i].length * 6.8;
    const labels = SIDES.map(([part, dx, dy]) => ({ part, text: texts[i], box: { x: x + dx - part * w, y: y + dy, w, h: 16 } }));
    const label = labels.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    taken.push(label.box);
    return label;
  });
}

const overlap = (a, b) =>
  Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

const outside = ({ x, y, w, h }, width, height) => Math.max(0, -x, x + w - width) + Math.max(0, -y, y + h - height);
