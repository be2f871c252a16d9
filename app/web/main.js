// Wires the page: one source at a time, drawn or shown, is asked about and its answer displayed.

import { announce, buildBars, clearAnswer, sentence, showAnswer } from "./answer/answer.js";
import { hideReading, isNumber, showReading } from "./answer/reading.js";
import { hideSight, showSight } from "./answer/sight.js";
import { hideRequest, initSnippets, showRequest } from "./answer/snippets.js";
import { showTiming } from "./answer/timing.js";
import { $, make } from "./dom.js";
import { initGallery, showGallery } from "./gallery.js";
import { closeCamera, initCamera } from "./input/camera.js";
import { initIntake } from "./input/intake.js";
import { Pad } from "./input/pad.js";
import { Latest, paced } from "./latest.js";
import { Problem, service, Unreachable } from "./service.js";

const DRAWING_MS = 70; // between two looks at a growing stroke
const STUDY_MS = 350; // of rest before a closer look is asked for
const CHECK_MS = 10_000;

const pad = new Pad($("pad"));
const answers = new Latest();
const studies = new Latest();
const loading = new Latest(); // of samples
let picture = null; // { name, blob, onDisk }: what is shown instead of the drawing

const follow = paced(() => ask(false), DRAWING_MS);
let retrying = null; // timers
let studying = null;
let explained = true; // this model can be

/** What is on the pad now. */
async function source() {
	return picture ?? { name: "digit.png", blob: await pad.picture(), onDisk: false };
}

/** Asks about what is on the pad now. `settled`: it is not being drawn on any more. */
async function ask(settled) {
	follow.cancel();
	clearTimeout(retrying);
	clearTimeout(studying);
	studies.cancel();
	$("answer").ariaBusy = true; // until it has settled
	const blank = pad.empty && !picture;
	$("undo").disabled = pad.empty || Boolean(picture);
	$("clear").disabled = blank;
	$("hint").hidden = !blank;
	if (blank) return reset();
	try {
		const read = await answers.run(async (signal) => {
			const given = await source();
			return { given, ...(await service.read("predict", given.blob, signal)) };
		});
		if (!read) return;
		complain("");
		const { given, answer, stages, roundTrip } = read.value;
		const { labels } = service.metadata?.card ?? (await service.learn()).card;
		hideReading();
		showAnswer(answer, labels);
		if (!settled) return;
		announce(sentence());
		showTiming(stages, roundTrip);
		showRequest("predict", [given]);
		studying = setTimeout(() => study(given, answer), picture ? 0 : STUDY_MS);
	} catch (error) {
		fail(error);
	}
}

/** Looks closer: are there several digits, and if not, what does the answer rest on? */
async function study(given, prediction) {
	const ask = (path) => studies.run((signal) => service.read(path, given.blob, signal));
	try {
		const number = await ask("read");
		if (!number) return;
		const { answer, stages, roundTrip } = number.value;
		if (isNumber(answer, prediction, pad)) {
			showReading(answer);
			showTiming(stages, roundTrip);
			showRequest("read", [given]);
			hideSight();
		} else if (explained) {
			const explanation = await ask("explain");
			if (!explanation) return;
			showSight(explanation.value.answer);
		}
	} catch (error) {
		hideSight(); // the answer stands without it
		explained &&= error.slug !== "no-explanations";
		if (error.retryMs) {
			studying = setTimeout(() => study(given, prediction), error.retryMs);
			return;
		}
	}
	$("answer").ariaBusy = false;
}

function fail(error) {
	if (error instanceof Unreachable) return; // the header tells, and "back" asks again
	if (!(error instanceof Problem)) throw error;
	if (error.status === 401) return;
	if (error.retryMs !== null) {
		complain("The service is busy; trying again …");
		retrying = setTimeout(() => ask(true), error.retryMs);
		return;
	}
	reset();
	complain(`${error.title}: ${error.message}.`);
}

function complain(words) {
	if ($("problem").textContent !== words) $("problem").textContent = words;
	$("problem").hidden = !words;
}

function reset() {
	$("answer").ariaBusy = false;
	answers.cancel();
	clearAnswer();
	hideReading();
	complain("");
	hideSight();
	hideRequest();
	$("timing").hidden = true;
}

/** Shows a picture on the pad, in the drawing's place, and asks about it. */
function show(blob, name, onDisk) {
	closeCamera();
	loading.cancel();
	pad.wipe();
	picture = { name, blob, onDisk };
	URL.revokeObjectURL($("picture").src);
	$("picture").src = URL.createObjectURL(blob);
	$("picture").alt = `The picture that is read: ${name}`;
	$("picture").hidden = false;
	$("no-preview").hidden = true;
	$("frame").dataset.shows = "picture";
	return ask(true);
}

/** Back to the drawing. */
function hidePicture() {
	closeCamera();
	picture = null;
	$("picture").hidden = $("no-preview").hidden = true;
	$("frame").dataset.shows = "drawing";
}

function take(files, onDisk) {
	if (files.length === 1) {
		const [file] = files;
		show(file, onDisk ? file.name : `pasted.${file.type.split("/")[1] || "png"}`, onDisk);
	} else showGallery(files);
}

function initPad() {
	pad.addEventListener("draw", () => {
		loading.cancel();
		if ($("frame").dataset.shows === "picture") hidePicture();
		$("hint").hidden = true;
		follow();
	});
	pad.addEventListener("settle", () => ask(true));
	pad.addEventListener("pen", ({ detail }) => announce(detail ? "Pen down" : "Pen up"));
	$("undo").onclick = () => pad.undo();
	$("clear").onclick = () => {
		hidePicture();
		pad.clear();
		ask(true);
		$("pad").focus({ preventScroll: true });
	};
	document.addEventListener("keydown", (event) => {
		const typing = event.target instanceof HTMLInputElement && event.target.type === "password";
		if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) {
			event.preventDefault();
			pad.undo();
		}
	});
	$("picture").onerror = () => {
		if (!picture) return;
		$("picture").hidden = true;
		$("no-preview").hidden = false;
		$("no-preview").textContent = `${picture.name}: no preview`;
	};
}

function initSamples() {
	$("samples").replaceChildren(
		...[..."0123456789", "postcode", "letter"].map((name) => {
			const src = `web/samples/${name}.png`;
			const image = make("img", { src, alt: "" });
			const onclick = async () => {
				const load = async (signal) => (await service.call(src, { signal })).blob();
				const loaded = await loading.run(load).catch(() => null); // the header tells why
				if (loaded) show(loaded.value, `${name}.png`, false);
			};
			const words = name.length > 1 ? [make("span", { textContent: name[0].toUpperCase() + name.slice(1) })] : [];
			return make("button", { ariaLabel: `Sample of a ${name}`, onclick }, image, ...words);
		}),
	);
}

function initState() {
	const words = {
		ready: "Ready",
		lost: "No answer; trying again …",
		locked: "An API key is needed",
	};
	service.addEventListener("state", () => {
		$("state").dataset.state = service.state;
		$("state-words").textContent = words[service.state];
		$("key-form").hidden = service.state !== "locked";
	});
	service.addEventListener("back", async () => {
		await learn();
		ask(true);
	});
	$("key-form").onsubmit = async (event) => {
		event.preventDefault();
		service.key = $("key").value.trim();
		await learn();
		if (service.state === "locked") complain("The service does not accept this key.");
		else ask(true);
	};
	setInterval(() => service.check(), CHECK_MS);
	document.addEventListener("visibilitychange", () => service.check());
}

async function learn() {
	try {
		const { card, engine } = await service.learn();
		buildBars(card.labels);
		$("model").textContent =
			`${card.name} ${card.version} · ${card.parameters.toLocaleString("en")} parameters · ` +
			`${engine.name} on ${engine.device}`;
	} catch {
		// Lost or locked, as the header says; asked again when that ends.
	}
}

initPad();
initSamples();
initState();
initSnippets();
initIntake(take);
initCamera(
	(blob) => show(blob, "camera.jpg", false),
	() => ($("frame").dataset.shows = "picture"),
	complain,
);
initGallery((file) => {
	show(file, file.name, true);
	$("answer").scrollIntoView({ block: "nearest" });
});
buildBars([..."0123456789"]);
learn();
