// Measures the contrast of all visible text (https://www.w3.org/TR/WCAG22/#contrast-minimum). This code runs in the page.

/** Lists text whose contrast with its background is below 4.5, and counts the texts checked. */
export function poorContrasts() {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

  // A canvas parses every CSS color syntax.
  function rgba(color) {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  const blend = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));

  function background(node) {
    if (!node) return [255, 255, 255];
    const own = rgba(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : blend(own, background(node.parentElement));
  }

  function luminance(color) {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function contrast(node, property, pseudo) {
    const below = background(node);
    const [high, low] = [blend(rgba(getComputedStyle(node, pseudo)[property]), below), below].map(luminance).sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  }

  const poor = [];
  let checked = 0;
  function check(node, text, property = "color", pseudo = null) {
    checked++;
    const value = contrast(node, property, pseudo);
    if (value < 4.5) poor.push(`${value.toFixed(2)} ${node.tagName} "${text.trim().slice(0, 40)}"`);
  }

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: node, data } = walker.currentNode;
    if (data.trim() && node.checkVisibility({ visibilityProperty: true }) && !node.closest("title, option, noscript")) {
      check(node, data, node.closest("svg") ? "fill" : "color");
    }
  }
  for (const field of document.querySelectorAll("input:not([type=checkbox], [type=radio], [type=range]), select, textarea")) {
    if (!field.checkVisibility()) continue;
    check(field, field.value);
    if (field.placeholder) check(field, field.placeholder, "color", "::placeholder");
  }
  return { poor, checked };
}
