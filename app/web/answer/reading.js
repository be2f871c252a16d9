// Several digits in one picture, from POST /read: the string, and a box around each digit.

import { announce, paintBars, percent, say } from "./answer.js";
import { $, make } from "../dom.js";

let marks = []; // { digit, button, box } of each digit

/** Whether /read found a number on the pad; in doubt it is one digit, or none. */
export function isNumber({ lines }, prediction, pad) {
	const digits = lines.flatMap((line) => line.digits);
	if (!pad.keepsTo(digits.map(({ box }) => box))) return false;
	const novelty = digits.reduce((sum, digit) => sum + digit.novelty, 0) / digits.length;
	const sure = digits.every(({ recognized }) => recognized);
	return digits.length > 1 && (sure || (!prediction.recognized && novelty < 0.35));
}

/** Shows an answer of /read, of at least one digit; choosing a digit shows its bars. */
export function showReading({ lines, width, height, text }) {
	marks = [];
	const rows = lines.map(({ digits }) => make("span", {}, ...digits.map(mark)));
	$("string").replaceChildren(...rows);
	$("string").style.setProperty("--length", Math.max(...lines.map((line) => line.text.length)));
	$("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
	$("boxes").replaceChildren(...marks.map(({ box }) => box));
	showString(true);
	$("answer").removeAttribute("data-unrecognized");
	const doubtful = marks.reduce((a, b) => (b.digit.confidence < a.digit.confidence ? b : a));
	choose(doubtful, "Least sure: ");
	announce(`${[...text].join(" ")}. ${marks.length} digits.`);
}

export const hideReading = () => showString(false);

function showString(shown) {
	$("digit").hidden = shown;
	$("string").hidden = !shown;
	$("boxes").toggleAttribute("hidden", !shown); // SVG elements have no such property
}

function mark(digit) {
	const button = make("button", { textContent: digit.label });
	const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
	for (const [name, value] of Object.entries(digit.box)) box.setAttribute(name, value);
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
