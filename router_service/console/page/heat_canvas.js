// The heatmap itself: a canvas, one rectangle for each cell, with a cursor.
import { colour, css, layerScale, ratioToBalanced } from "./heat_scale.js";

const LEAST_CELL = { width: 4, height: 12 };
const MOST_CELL = { width: 34, height: 30 };
// Room for the index of a layer, left of its row.
export const GUTTER = 34;

export function cellSize(available, rows, columns) {
  const fit = (space, count, least, most) => Math.max(least, Math.min(most, Math.floor(space / count)));
  return {
    width: fit(available - GUTTER, columns, LEAST_CELL.width, MOST_CELL.width),
    height: fit(560, rows, LEAST_CELL.height, MOST_CELL.height),
  };
}

export function cellAt(event, cell, rows, columns) {
  const box = event.currentTarget.getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top) / cell.height);
  const column = Math.floor((event.clientX - box.left - GUTTER) / cell.width);
  return row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : undefined;
}

// The cells as they were painted last, for when only the cursor moves: {key, picture} by their layers.
const painted = new WeakMap();

function cells(layers, columns, cell, theme, ink, scale) {
  const key = [cell.width, cell.height, theme, scale].join();
  const before = painted.get(layers);
  if (before?.key === key) return before.picture;
  const picture = document.createElement("canvas");
  picture.width = Math.round((GUTTER + columns * cell.width) * scale);
  picture.height = Math.round(layers.length * cell.height * scale);
  const context = picture.getContext("2d");
  context.scale(scale, scale);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  const gap = cell.width >= 8 ? 1 : 0;
  layers.forEach((layer, row) => {
    const ofLayer = layerScale(layer.assignments);
    context.fillStyle = ink;
    context.fillText(String(layer.layer), GUTTER - 6, (row + 0.5) * cell.height);
    layer.assignments.forEach((value, column) => {
      context.fillStyle = css(colour(ratioToBalanced(value, ofLayer), theme));
      context.fillRect(GUTTER + column * cell.width, row * cell.height, cell.width - gap, cell.height - 1);
    });
  });
  painted.set(layers, { key, picture });
  return picture;
}

// Keeps the cursor within the box that scrolls, when it has moved.
function follow(canvas, { row, column }, cell) {
  const place = `${row},${column}`;
  if (canvas.dataset.cursor === place) return;
  canvas.dataset.cursor = place;
  const box = canvas.parentElement;
  const left = GUTTER + column * cell.width;
  if (left - GUTTER < box.scrollLeft) box.scrollLeft = left - GUTTER;
  else if (left + 2 * cell.width > box.scrollLeft + box.clientWidth) box.scrollLeft = left + 2 * cell.width - box.clientWidth;
}

export function drawHeat(canvas, { layers, columns, cell, cursor, theme, ink }) {
  const scale = window.devicePixelRatio || 1;
  const picture = cells(layers, columns, cell, theme, ink, scale);
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  canvas.style.setProperty("width", `${picture.width / scale}px`);
  canvas.style.setProperty("height", `${picture.height / scale}px`);
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  context.scale(scale, scale);
  context.strokeStyle = ink;
  context.lineWidth = 2;
  follow(canvas, cursor, cell);
  context.strokeRect(GUTTER + cursor.column * cell.width - 1, cursor.row * cell.height - 1, cell.width + 1, cell.height + 1);
}
