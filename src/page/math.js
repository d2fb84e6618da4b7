// Vectors, and colours for numbers.

/** The cosine of vectors of length 1. */
function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Places of the `limit` highest scores, the best first. */
const best = (scores, limit) =>
  scores
    .map((score, at) => ({ score, at }))
    .sort((a, b) => b.score - a.score)
    .slice(0, limit);

/** Products of all vectors less their mean: its eigenvectors are the principal components, and there are few texts of many values. */
function gram(vectors) {
  const mean = vectors[0].map((_, i) => vectors.reduce((sum, v) => sum + v[i], 0) / vectors.length);
  const centred = vectors.map((v) => v.map((x, i) => x - mean[i]));
  return centred.map((a) => Float64Array.from(centred, (b) => dot(a, b)));
}

/** The largest eigenvalue of a symmetric matrix and its vector, by power iteration. */
function eigen(matrix) {
  // Its own diagonal as the start: the same map for the same texts, and no start that is at right angles by symmetry alone.
  let vector = matrix.map((row, i) => row[i] * (1 + 0.1 * i));
  let value = 0;
  for (let step = 0; step < 300; step++) {
    const next = matrix.map((row) => dot(row, vector));
    value = Math.hypot(...next);
    if (value < 1e-9) return { value: 0, vector: vector.map(() => 0) };
    vector = next.map((x) => x / value);
  }
  return { value, vector };
}

/** Points in two dimensions, and how much of the variance they show (principal component analysis). */
function plane(vectors) {
  const matrix = gram(vectors);
  const variance = matrix.reduce((sum, row, i) => sum + row[i], 0);
  const axes = [0, 1].map(() => {
    const { value, vector } = eigen(matrix);
    matrix.forEach((row, i) => row.forEach((_, j) => (row[j] -= value * vector[i] * vector[j])));
    return { value, values: vector.map((x) => x * Math.sqrt(value)) };
  });
  const points = vectors.map((_, i) => axes.map((axis) => axis.values[i]));
  return { points, shown: variance ? axes.reduce((sum, axis) => sum + axis.value, 0) / variance : 1 };
}

const RAMPS = {
  day: [[255, 248, 236], [246, 176, 88], [142, 50, 6]],
  night: [[44, 33, 25], [160, 78, 16], [255, 210, 140]],
};

/** The colour of a number from 0 to 1. */
function ramp(colours, part) {
  const at = Math.min(Math.max(part, 0), 1) * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  return colours[low].map((c, i) => Math.round(c + (colours[low + 1][i] - c) * (at - low)));
}

/** Black or white, of which one has a contrast of 4.5 with any colour: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio. */
function ink(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
