// Several digits in one picture, from POST /read: the string, and a box around each digit.

import { paintBars, percent, say } from "./answer.js";
import { $, make } from "./dom.js";

let marks = []; // { digit, button, box } of each digit

/**
 * Shows what was read; choosing a digit shows its bars.
 *
 * lines: of digits { box: [x, y, width, height], label, confidence, probabilities }.
 * size: [width, height] of the picture that the boxes are in.
 */
export function showReading(lines, size) {
  marks = [];
  const rows = lines.map((digits) => make("span", {}, ...digits.map(mark)));
  $("string").replaceChildren(...rows);
  $("string").style.setProperty("--length", Math.max(...lines.map((digits) => digits.length)));
  $("boxes").setAttribute("viewBox", `0 0 ${size.join(" ")}`);
  $("boxes").replaceChildren(...marks.map(({ box }) => box));
  $("boxes").hidden = $("string").hidden = false;
  $("digit").hidden = true;
  const doubtful = marks.reduce((a, b) => (b.digit.confidence < a.digit.confidence ? b : a));
  choose(doubtful, "Least sure: ");
}

export function hideReading() {
  $("boxes").hidden = $("string").hidden = true;
  $("digit").hidden = false;
}

function mark(digit) {
  const button = make("button", { textContent: digit.label });
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const [x, y, width, height] = digit.box;
  for (const [name, value] of Object.entries({ x, y, width, height })) box.setAttribute(name, value);
  const made = { digit, button, box };
  button.onclick = box.onclick = () => choose(made, "");
  marks.push(made);
  return button;
}

function choose({ digit, button }, prefix) {
  for (const each of marks) {
    each.button.ariaPressed = each.button === button;
    each.box.classList.toggle("chosen", each.button === button);
  }
  say(`${marks.length} digits`, `${prefix}${digit.label}, at ${percent(digit.confidence)}`);
  paintBars(digit.probabilities);
}
