// Vector arithmetic, and the colors of the similarity matrix.

/** The dot product, which is the cosine similarity of unit vectors. */
function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The `k` highest scores with their positions, highest first. */
const topK = (scores, k) =>
  scores
    .map((score, index) => ({ score, index }))
    .sort((a, b) => b.score - a.score)
    .slice(0, k);

/** The Gram matrix of the centered vectors. Its eigenvectors give the principal components, and it is small: there are few texts, but many dimensions. */
function gramMatrix(vectors) {
  const mean = vectors[0].map((_, i) => vectors.reduce((sum, v) => sum + v[i], 0) / vectors.length);
  const centered = vectors.map((v) => v.map((x, i) => x - mean[i]));
  return centered.map((a) => Float64Array.from(centered, (b) => dot(a, b)));
}

/** The largest eigenvalue of a symmetric matrix and its unit eigenvector. */
function powerIteration(matrix) {
  // The diagonal as the start vector makes the map deterministic; the factor breaks symmetries that could make it orthogonal to the result.
  let vector = matrix.map((row, i) => row[i] * (1 + 0.1 * i));
  let value = 0;
  for (let iteration = 0; iteration < 300; iteration++) {
    const next = matrix.map((row) => dot(row, vector));
    value = Math.hypot(...next);
    if (value < 1e-9) return { value: 0, vector: vector.map(() => 0) };
    vector = next.map((x) => x / value);
  }
  return { value, vector };
}

/** Principal component analysis to two dimensions: [x, y] per vector, and the fraction of the variance that they explain. */
function pca2d(vectors) {
  const matrix = gramMatrix(vectors);
  const variance = matrix.reduce((sum, row, i) => sum + row[i], 0);
  const axes = [0, 1].map(() => {
    const { value, vector } = powerIteration(matrix);
    matrix.forEach((row, i) => row.forEach((_, j) => (row[j] -= value * vector[i] * vector[j])));
    return { value, coordinates: vector.map((x) => x * Math.sqrt(value)) };
  });
  const points = vectors.map((_, i) => axes.map((axis) => axis.coordinates[i]));
  return { points, explained: variance ? axes.reduce((sum, axis) => sum + axis.value, 0) / variance : 1 };
}

// RGB stops of the color scale in each color scheme, from score 0 to score 1.
const COLOR_STOPS = {
  light: [[255, 248, 236], [246, 176, 88], [142, 50, 6]],
  dark: [[44, 33, 25], [160, 78, 16], [255, 210, 140]],
};

/** The RGB color of a score, which is clamped to [0, 1]. */
function colorScale(stops, score) {
  const position = Math.min(Math.max(score, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(position), stops.length - 2);
  return stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (position - low)));
}

/** Black or white, whichever has a contrast of at least 4.5 with the background: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio. */
function textColor(background) {
  const [r, g, b] = background.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
