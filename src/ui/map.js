// The embedding map: a scatter plot of the texts' first two principal components.

function showMap({ texts, vectors }) {
  const width = $("map").clientWidth;
  // The width is zero while another tab is selected.
  if (!width) return;
  const height = Math.min(width * 0.75, 420);
  const { points, explained } = pca2d(vectors);
  const dots = fitToSize(points, width, height);
  const labels = placeLabels(dots, texts.map((text, i) => labelText(text, i, width < 420 || texts.length > 16)), width, height);
  const marks = texts.map((text, i) => drawPoint(`${i + 1}: ${text}`, dots[i], labels[i]));
  const name = `Map of ${pluralize(texts.length, "text")}: similar texts are close together.`;
  $("map").replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name }, ...marks));
  const caption = `Similar texts are close together. The first two principal components explain ${Math.round(explained * 100)}% of the variance.`;
  // A single point has no variance.
  $("map-caption").textContent = texts.length > 1 ? caption : "";
}

function drawPoint(title, { x, y }, { box, align, text }) {
  const anchor = { 0: "start", 0.5: "middle", 1: "end" }[align];
  const label = svg("text", { x: box.x + align * box.w, y: box.y + 12, "text-anchor": anchor }, text);
  return svg("g", {}, svg("title", {}, title), svg("circle", { cx: x, cy: y, r: 6 }), label);
}

/** Scales points to pixels, by the same factor on both axes. */
function fitToSize(points, width, height) {
  const MARGIN = 28;
  const axes = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [low, high] = [axes.map((a) => Math.min(...a)), axes.map((a) => Math.max(...a))];
  const scales = [width, height].map((size, axis) => (size - 2 * MARGIN) / Math.max(high[axis] - low[axis], 1e-9));
  const scale = Math.min(...scales, 1e6);
  const toPixels = (point, axis, size) => size / 2 + (point[axis] - (low[axis] + high[axis]) / 2) * scale;
  return points.map((point) => ({ x: toPixels(point, 0, width), y: toPixels(point, 1, height) }));
}

/** The number of a text and, if there is room, its beginning. */
function labelText(text, i, isNumberOnly) {
  const start = [...text].slice(0, isNumberOnly ? 0 : 24).join("").trim();
  return `${i + 1} ${start}${start && start.length < text.length ? "…" : ""}`.trim();
}

// Possible label positions in order of preference: alignment (0 start, 0.5 middle, 1 end) and offset from the point in pixels.
const LABEL_POSITIONS = [[0, 10, -8], [1, -10, -8], [0.5, 0, 8], [0.5, 0, -24], [0, 7, 5], [0, 7, -20], [1, -7, 5], [1, -7, -20]];

/** Places each label where it overlaps least with the points and with the labels before it. */
function placeLabels(dots, texts, width, height) {
  const occupied = dots.map(({ x, y }) => ({ x: x - 6, y: y - 6, w: 12, h: 12 }));
  const cost = ({ box }) => occupied.reduce((sum, other) => sum + overlapArea(box, other), 20 * outsideLength(box, width, height));
  return dots.map(({ x, y }, i) => {
    // An upper estimate of the width of 12 px system font text, because measuring text needs a layout.
    const w = texts[i].length * 6.8;
    const labels = LABEL_POSITIONS.map(([align, dx, dy]) => ({ align, text: texts[i], box: { x: x + dx - align * w, y: y + dy, w, h: 16 } }));
    const label = labels.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    occupied.push(label.box);
    return label;
  });
}

const overlapArea = (a, b) =>
  Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

/** By how many pixels a box extends beyond the picture, summed over both axes. */
const outsideLength = ({ x, y, w, h }, width, height) => Math.max(0, -x, x + w - width) + Math.max(0, -y, y + h - height);
