// How a load is coloured: by its ratio to the balanced load of its layer, on a scale of doublings.

// Ratios beyond 1/4 and 4 look like these.
export const DOUBLINGS = 2;

const THEMES = {
  light: { none: [24, 39, 58], cold: [74, 127, 190], even: [232, 230, 222], hot: [196, 62, 10] },
  dark: { none: [4, 6, 8], cold: [62, 116, 184], even: [46, 54, 60], hot: [255, 138, 76] },
};

export function layerScale(assignments) {
  const sum = assignments.reduce((all, value) => all + Number(value), 0);
  return { sum, balanced: assignments.length ? sum / assignments.length : 0 };
}

export function ratioToBalanced(value, scale) {
  return scale.balanced > 0 ? Number(value) / scale.balanced : 0;
}

// From -1 (a quarter or less) over 0 (balanced) to 1 (four times or more); undefined: none at all.
export function position(ratio) {
  if (!(ratio > 0)) return undefined;
  return Math.max(-1, Math.min(1, Math.log2(ratio) / DOUBLINGS));
}

function mix(from, to, share) {
  return from.map((value, i) => Math.round(value + (to[i] - value) * share));
}

export function colour(ratio, theme) {
  const colours = THEMES[theme];
  const at = position(ratio);
  if (at === undefined) return colours.none;
  return at < 0 ? mix(colours.even, colours.cold, -at) : mix(colours.even, colours.hot, at);
}

export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

// Where a key moves the cursor to; undefined for keys that mean nothing here.
export function moveCursor({ row, column }, key, rows, columns) {
  const to = {
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    PageUp: [row, column - 16],
    PageDown: [row, column + 16],
    Home: [row, 0],
    End: [row, columns - 1],
  }[key];
  if (!to) return undefined;
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  return { row: within(to[0], rows), column: within(to[1], columns) };
}
