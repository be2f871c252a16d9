// Several pictures at once: a card for each, and all of them as CSV.

import { percent } from "./answer/answer.js";
import { showRequest } from "./answer/snippets.js";
import { $, make } from "./dom.js";
import { Latest } from "./latest.js";
import { Problem, service, Unreachable } from "./service.js";

const FORM_OVERHEAD = 300; // bytes that a file's part adds to the form, besides its name
const TRIES = 5;

const turns = new Latest();
let entries = []; // { file, card, outcome } where outcome is a prediction, { error } or null
let open = () => {};

/** `opener(file)` is called when a card is chosen. */
export function initGallery(opener) {
	open = opener;
	$("csv").onclick = download;
	$("close").onclick = () => {
		turns.cancel();
		$("gallery").hidden = true;
		$("choose").focus();
	};
	$("order").onclick = () => {
		const doubtfulFirst = $("order").getAttribute("aria-pressed") !== "true";
		$("order").setAttribute("aria-pressed", doubtfulFirst);
		sort(doubtfulFirst);
	};
}

/** Reads all pictures, in batches within the server's limits. */
export function showGallery(files) {
	for (const { url } of entries) URL.revokeObjectURL(url);
	entries = files.map((file) => ({ file, outcome: null, ...card(file) }));
	$("cards").replaceChildren(...entries.map((entry) => entry.card));
	$("order").setAttribute("aria-pressed", "false");
	$("gallery").hidden = false;
	$("gallery-title").focus();
	return turns.run((signal) => readAll(signal));
}

async function readAll(signal) {
	report();
	const { limits } = service.metadata ?? (await service.learn());
	for (const batch of split(entries, limits)) {
		const outcomes = await readBatch(batch, signal);
		signal.throwIfAborted();
		for (const [index, entry] of batch.entries()) settle(entry, outcomes[index]);
		report();
	}
	const pictures = entries.slice(0, limits.max_files);
	showRequest("predict/batch", pictures.map(({ file }) => ({ name: file.name, blob: file, onDisk: true })));
}

/** Entries in groups that one request may carry; a file that is too large is settled here. */
function split(all, limits) {
	const batches = [];
	let bytes = 0;
	for (const entry of all) {
		const size = entry.file.size + new Blob([entry.file.name]).size + FORM_OVERHEAD;
		if (entry.file.size > limits.max_bytes || size > limits.max_body_bytes) {
			settle(entry, { error: { detail: `the file has more than ${limits.max_bytes} bytes` } });
			continue;
		}
		const last = batches.at(-1);
		if (last && last.length < limits.max_files && bytes + size <= limits.max_body_bytes) {
			last.push(entry);
			bytes += size;
		} else {
			batches.push([entry]);
			bytes = size;
		}
	}
	return batches;
}

async function readBatch(batch, signal) {
	const form = new FormData();
	for (const { file } of batch) form.append("files", file, file.name);
	for (let attempt = 1; ; attempt++) {
		try {
			const response = await service.call("predict/batch", { method: "POST", body: form, signal });
			return (await response.json()).predictions;
		} catch (error) {
			signal.throwIfAborted();
			if (error instanceof Unreachable) {
				await new Promise((go) => service.addEventListener("back", go, { once: true }));
			} else if (error instanceof Problem && error.retryMs !== null && attempt < TRIES) {
				await new Promise((go) => setTimeout(go, error.retryMs));
			} else {
				return batch.map(() => ({ error: { detail: error.message } }));
			}
		}
	}
}

function card(file) {
	const url = URL.createObjectURL(file);
	const picture = make("img", { alt: "", loading: "lazy", src: url });
	picture.onerror = () => picture.replaceWith(make("i", { textContent: file.name.split(".").pop() }));
	const label = make("b", { textContent: "…" });
	const note = make("small");
	const name = make("span", { textContent: file.name });
	const button = make("button", { onclick: () => open(file) }, picture, label, note, name);
	return { card: make("li", {}, button), label, note, url };
}

function settle(entry, outcome) {
	entry.outcome = outcome;
	const failed = Boolean(outcome.error);
	const unrecognized = outcome.recognized === false;
	entry.label.textContent = failed ? "✕" : unrecognized ? "?" : outcome.label;
	entry.note.textContent = failed
		? outcome.error.detail
		: unrecognized
			? `no digit? closest ${outcome.label}`
			: percent(outcome.confidence);
	entry.card.className = failed ? "failed" : unrecognized || outcome.confidence < 0.8 ? "doubtful" : "";
}

function report() {
	const done = entries.filter(({ outcome }) => outcome);
	const failed = done.filter(({ outcome }) => outcome.error).length;
	const errors = failed ? `, ${failed} could not be read` : "";
	$("gallery-state").textContent =
		done.length < entries.length
			? `${done.length} of ${entries.length} read …`
			: `${done.length - failed} of ${entries.length} read${errors}`;
	$("csv").disabled = done.length < entries.length;
}

function sort(doubtfulFirst) {
	const doubt = ({ outcome }) => (!outcome || outcome.error ? 2 : 1 - outcome.confidence);
	const ordered = doubtfulFirst ? [...entries].sort((a, b) => doubt(b) - doubt(a)) : entries;
	$("cards").append(...ordered.map((entry) => entry.card));
}

function download() {
	const labels = service.metadata.card.labels;
	const head = ["file", "label", "confidence", "recognized", "novelty", ...labels.map((l) => `p_${l}`), "error"];
	const rows = entries.map(({ file, outcome }) => {
		const { label, confidence, recognized, novelty, probabilities, error } = outcome;
		const shares = probabilities ?? labels.map(() => "");
		return [file.name, label, confidence, recognized, novelty, ...shares, error?.detail];
	});
	const text = [head, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
	const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
	make("a", { href, download: "digits.csv" }).click();
	URL.revokeObjectURL(href);
}

/** RFC 4180; a text that a spreadsheet would take for a formula is made plain. */
function cell(value = "") {
	const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
	return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
