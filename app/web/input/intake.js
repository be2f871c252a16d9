// Pictures from outside: chosen, dropped (folders too) or pasted.

import { $ } from "../dom.js";

/** Calls `take(files, onDisk)` with what the user hands over, in its order. */
export function initIntake(take) {
	$("choose").onclick = () => $("files").click();
	$("files").onchange = () => {
		if ($("files").files.length) take([...$("files").files], true);
		$("files").value = ""; // so that the same file may be chosen again
	};
	document.addEventListener("paste", (event) => {
		const files = [...event.clipboardData.files];
		if (!files.length) return;
		event.preventDefault();
		take(files, false);
	});
	initDrop(take);
}

function initDrop(take) {
	let depth = 0; // dragenter and dragleave come for each element passed
	const show = (inside) => {
		depth = inside;
		$("drop").classList.toggle("shown", depth > 0);
	};
	document.addEventListener("dragenter", () => show(depth + 1));
	document.addEventListener("dragleave", () => show(Math.max(0, depth - 1)));
	document.addEventListener("dragover", (event) => event.preventDefault());
	document.addEventListener("drop", async (event) => {
		event.preventDefault();
		show(0);
		const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
		const plain = [...event.dataTransfer.files];
		const folders = entries.some((entry) => entry?.isDirectory);
		const files = folders ? (await Promise.all(entries.map(filesIn))).flat() : plain;
		if (files.length) take(files, true);
	});
}

async function filesIn(entry) {
	if (!entry) return [];
	if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
	const reader = entry.createReader();
	const found = [];
	for (;;) {
		const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // 100 at a time
		if (!some.length) break;
		found.push(...some);
	}
	return (await Promise.all(found.map(filesIn))).flat();
}
