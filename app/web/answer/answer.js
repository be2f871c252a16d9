// The answer: a large digit, how sure the model is, and a bar for each class.

import { $, make } from "../dom.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");

let bars = [];
let announcing = null;

/** Makes a bar for each of the model's classes, unless there are these already. */
export function buildBars(labels) {
	if (labels.join() === bars.map(({ item }) => item.lastChild.textContent).join()) return;
	bars = labels.map((label) => {
		const percent = make("span", { className: "percent" });
		const bar = make("span", { className: "bar" });
		const name = make("span", { className: "name", textContent: label });
		return { percent, bar, item: make("li", {}, percent, bar, name) };
	});
	$("bars").replaceChildren(...bars.map(({ item }) => item));
	clearAnswer();
}

/** Shows a prediction; `labels` are the classes in order. */
export function showAnswer(prediction, labels) {
	const { label, confidence, recognized } = prediction;
	const unsure = recognized === false;
	$("answer").removeAttribute("data-empty");
	$("answer").toggleAttribute("data-unrecognized", unsure);
	setDigit(label);
	say(
		unsure ? "This doesn’t look like a digit" : certainty(prediction, labels),
		unsure ? `The closest is ${label}, at ${percent(confidence)}` : `${percent(confidence)} confidence`,
	);
	paintBars(prediction.probabilities);
}

/** The answer in words. */
export function say(words, detail) {
	$("words").textContent = words;
	$("detail").textContent = detail;
}

/** Back to before the first answer. */
export function clearAnswer() {
	$("answer").setAttribute("data-empty", "");
	$("answer").removeAttribute("data-unrecognized");
	setDigit("");
	say("Draw a digit", "A Perceiver reads along. Or drop, paste or take a picture.");
	paintBars(bars.map(() => 0));
	announce("");
}

/** The answer as it stands, as a sentence. */
export function sentence() {
	const digit = $("answer").hasAttribute("data-unrecognized") ? "" : `${$("digit").textContent}. `;
	return `${digit}${$("words").textContent}. ${$("detail").textContent}.`;
}

/** Reads a sentence out to screen readers once the input has come to rest. */
export function announce(sentence) {
	clearTimeout(announcing);
	announcing = setTimeout(() => ($("live").textContent = sentence), sentence ? 400 : 0);
}

export const percent = (share) => {
	const value = Math.min(share * 100, share < 1 ? 99.9 : 100);
	return `${value >= 99 || value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
};

function certainty({ confidence, probabilities, label }, labels) {
	const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
	const [, second, third] = ranked.map((index) => labels[index]);
	if (confidence >= 0.99) return "Certain";
	if (confidence >= 0.95) return "Almost certain";
	if (confidence >= 0.8) return "Fairly sure";
	if (confidence >= 0.5) return `Probably, but it could be ${second}`;
	return `A guess between ${label}, ${second} and ${third}`;
}

function setDigit(label) {
	const digit = $("digit");
	if (digit.textContent === label) return;
	digit.textContent = label;
	if (!calm.matches) digit.animate({ opacity: [0, 1], scale: [0.92, 1] }, 200);
}

export function paintBars(probabilities) {
	const best = probabilities.indexOf(Math.max(...probabilities));
	for (const [index, { item, bar, percent: text }] of bars.entries()) {
		const share = probabilities[index];
		bar.style.setProperty("--share", share);
		text.textContent = percent(share);
		item.classList.toggle("best", index === best && share > 0);
		item.classList.toggle("some", share >= 0.01);
	}
}
