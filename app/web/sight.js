// What the model saw, and where it looked: the maps of POST /explain.

import { $, make } from "./dom.js";

let current = null; // { input, groups }
let chosen = "0"; // the value of the chosen map, kept from one picture to the next

/**
 * Shows an explanation.
 *
 * input: rows of 0..255. groups: [{ name, maps: [{ name, map }] }], each map rows of numbers: what
 * is below zero spoke against the answer.
 */
export function showSight({ input, groups }) {
  const sameShape = shape(current?.groups) === shape(groups);
  current = { input, groups };
  $("sight").hidden = false;
  paintGrey($("seen"), input);
  $("looked-figure").hidden = groups.length === 0;
  if (!sameShape) buildMaps(groups);
  for (const radio of $("maps").querySelectorAll("input")) {
    paintHeat(radio.nextElementSibling, input, mapAt(radio.value).map);
  }
  choose(chosen);
}

export function hideSight() {
  $("sight").hidden = true;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (current) showSight(current);
});

const shape = (groups) => JSON.stringify(groups?.map(({ maps }) => maps.length));

function mapAt(value) {
  const [group, index] = value.split("-").map(Number);
  return current.groups[group]?.maps[index ?? 0];
}

function choose(value) {
  const found = mapAt(value) ?? current.groups[0]?.maps[0];
  if (!found) return;
  chosen = value;
  paintHeat($("looked"), current.input, found.map);
  $("looked").setAttribute("aria-label", found.name);
  $("looked-caption").textContent = found.name;
}

function buildMaps(groups) {
  const fieldsets = groups.map(({ name, maps }, group) => {
    const choices = maps.map((map, index) => {
      const value = `${group}-${index}`;
      const onchange = () => choose(value);
      const radio = make("input", { type: "radio", name: "map", value, ariaLabel: map.name, onchange });
      const canvas = make("canvas", { width: 28, height: 28 });
      return make("label", { title: map.name }, radio, canvas);
    });
    return make("fieldset", {}, make("legend", { textContent: name }), ...choices);
  });
  $("maps").replaceChildren(...fieldsets);
  const radios = [...$("maps").querySelectorAll("input")];
  const radio = radios.find(({ value }) => value === chosen) ?? radios[0];
  if (radio) {
    radio.checked = true;
    chosen = radio.value;
  }
}

function paintGrey(canvas, rows) {
  paint(canvas, rows, (grey) => [grey, grey, grey]);
}

/** The map, brightest on the ink; weights are lifted, so that small ones are seen too. */
function paintHeat(canvas, input, map) {
  const peak = Math.max(...map.flat().map(Math.abs)) || 1;
  paint(canvas, input, (grey, y, x) => {
    const weight = map[y][x] / peak;
    return heat(Math.abs(weight) ** 0.7, weight < 0 ? COLD : GLOW, grey);
  });
}

// Black through red and orange to pale yellow, as glowing iron; blue for what spoke against.
const GLOW = [[14, 14, 18], [110, 24, 34], [216, 64, 28], [255, 153, 51], [255, 240, 190]];
const COLD = [[14, 14, 18], [24, 40, 110], [40, 96, 216], [120, 180, 255], [220, 240, 255]];

function heat(weight, colors, grey) {
  const at = weight * (colors.length - 1);
  const low = Math.min(Math.floor(at), colors.length - 2);
  return colors[low].map((value, channel) => {
    const glow = value + (colors[low + 1][channel] - value) * (at - low);
    return glow * (0.45 + (0.55 * grey) / 255) + grey * 0.2;
  });
}

function paint(canvas, rows, color) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(rows[0].length, rows.length);
  let at = 0;
  for (const [y, row] of rows.entries()) {
    for (const [x, grey] of row.entries()) {
      image.data.set([...color(grey, y, x), 255], at);
      at += 4;
    }
  }
  context.putImageData(image, 0, 0);
}
