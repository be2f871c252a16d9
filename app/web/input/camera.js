// Pictures from the camera.

import { $ } from "../dom.js";

const SIDE = 480; // pixels of the square that is taken

let stream = null;

/** The camera button shows the camera, then takes a picture; calls `take(blob)`. */
export function initCamera(take, opened, failed) {
	$("camera").onclick = async () => {
		if (stream) {
			take(await shot());
			return;
		}
		if (!navigator.mediaDevices) {
			failed("The camera needs HTTPS, or the service on this computer.");
			return;
		}
		try {
			stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
		} catch {
			failed("The camera can’t be used: there is none, or it was not allowed.");
			return;
		}
		opened();
		$("video").srcObject = stream;
		$("video").hidden = false;
		$("video").play();
		label("Take it", true);
		$("clear").disabled = false; // a way out
	};
}

export function closeCamera() {
	if (!stream) return;
	for (const track of stream.getTracks()) track.stop();
	stream = null;
	$("video").srcObject = null;
	$("video").hidden = true;
	label("Camera", false);
}

function label(words, pressed) {
	$("camera").querySelector("span").textContent = words;
	$("camera").setAttribute("aria-pressed", pressed);
}

/** The middle square of what the camera shows. */
function shot() {
	const video = $("video");
	const side = Math.min(video.videoWidth, video.videoHeight);
	const canvas = new OffscreenCanvas(SIDE, SIDE);
	const left = (video.videoWidth - side) / 2;
	const top = (video.videoHeight - side) / 2;
	canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, SIDE, SIDE);
	return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}
