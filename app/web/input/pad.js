// The drawing pad: strokes by mouse, finger, pen or keyboard.

const EXPORT = 168; // pixels of the picture that is sent: six for each of the model's
const PEN = 0.075; // stroke width, as a share of the side: about MNIST's
const STEP = 0.05;
const SMALL_STEP = 0.01;

/**
 * Fires "draw" as a stroke grows and "settle" when it ends, is undone or all is cleared.
 * A stroke is a list of points [x, y] in 0..1.
 */
export class Pad extends EventTarget {
	#canvas;
	#strokes = [];
	#pointer = null; // id of the pointer that draws
	#cursor = null; // where the keyboard's pen is
	#penDown = false;
	#frame = 0;

	constructor(canvas) {
		super();
		this.#canvas = canvas;
		canvas.addEventListener("pointerdown", (event) => this.#down(event));
		canvas.addEventListener("pointermove", (event) => this.#move(event));
		canvas.addEventListener("lostpointercapture", (event) => this.#up(event)); // up or cancelled
		canvas.addEventListener("keydown", (event) => this.#key(event));
		canvas.addEventListener("focus", () => this.#paint());
		canvas.addEventListener("blur", () => this.#blur());
		new ResizeObserver(() => this.#resize()).observe(canvas);
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
	}

	get empty() {
		return this.#strokes.length === 0;
	}

	undo() {
		if (this.empty) return;
		this.#strokes.pop();
		this.#lift();
		this.#changed("settle");
	}

	clear() {
		if (this.empty) return;
		this.wipe();
		this.#changed("settle");
	}

	/** Clears without telling. */
	wipe() {
		this.#strokes = [];
		this.#lift();
		this.#paint();
	}

	/** Whether each stroke keeps to the width of one of these boxes, in pixels of the picture. */
	keepsTo(boxes) {
		const within = (box, [x]) => Math.abs(x * EXPORT - box.x - box.width / 2) < box.width / 2;
		const part = (stroke, box) => stroke.filter((point) => within(box, point)).length;
		return this.#strokes.every((stroke) => boxes.some((box) => part(stroke, box) > 0.75 * stroke.length));
	}

	/** The drawing as a PNG, black on white. */
	picture() {
		const canvas = new OffscreenCanvas(EXPORT, EXPORT);
		const context = canvas.getContext("2d");
		context.fillStyle = "#fff";
		context.fillRect(0, 0, EXPORT, EXPORT);
		this.#draw(context, EXPORT, "#000");
		return canvas.convertToBlob({ type: "image/png" });
	}

	#lift() {
		this.#pointer = null;
		this.#penDown = false;
	}

	#down(event) {
		if (event.button !== 0 || this.#pointer !== null) return;
		this.#canvas.setPointerCapture(event.pointerId);
		this.#pointer = event.pointerId;
		this.#cursor = null;
		this.#penDown = false;
		this.#strokes.push([this.#point(event)]);
		this.#changed("draw");
	}

	#move(event) {
		if (event.pointerId !== this.#pointer) return;
		const events = event.getCoalescedEvents?.() ?? [];
		this.#strokes.at(-1).push(...(events.length ? events : [event]).map((e) => this.#point(e)));
		this.#changed("draw");
	}

	#up(event) {
		if (event.pointerId !== this.#pointer) return;
		this.#pointer = null;
		this.#changed("settle");
	}

	#key(event) {
		const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
		const step = event.shiftKey ? SMALL_STEP : STEP;
		if (event.key in directions) {
			const cursor = this.#cursor ?? [0.5, 0.5];
			this.#cursor = cursor.map((value, axis) => {
				return Math.min(1, Math.max(0, value + directions[event.key][axis] * step));
			});
			if (this.#penDown) {
				this.#strokes.at(-1).push(this.#cursor);
				this.#changed("draw");
			} else this.#paint();
		} else if (event.key === " ") {
			this.#cursor ??= [0.5, 0.5];
			this.#penDown = !this.#penDown;
			if (this.#penDown) this.#strokes.push([this.#cursor]);
			this.#changed(this.#penDown ? "draw" : "settle");
			this.dispatchEvent(new CustomEvent("pen", { detail: this.#penDown }));
		} else if (event.key === "Delete" || event.key === "Backspace") this.clear();
		else return;
		event.preventDefault();
	}

	#blur() {
		if (this.#penDown) {
			this.#penDown = false;
			this.#changed("settle");
		}
		this.#cursor = null;
		this.#paint();
	}

	#point(event) {
		const box = this.#canvas.getBoundingClientRect();
		return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
	}

	#changed(kind) {
		this.#paint();
		this.dispatchEvent(new Event(kind));
	}

	#resize() {
		const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
		if (side && side !== this.#canvas.width) {
			this.#canvas.width = this.#canvas.height = side;
			this.#paintNow();
		}
	}

	#paint() {
		this.#frame ||= requestAnimationFrame(() => this.#paintNow());
	}

	#paintNow() {
		this.#frame = 0;
		const side = this.#canvas.width;
		const context = this.#canvas.getContext("2d");
		const style = getComputedStyle(this.#canvas);
		context.clearRect(0, 0, side, side);
		this.#draw(context, side, style.color);
		if (this.#cursor && document.activeElement === this.#canvas) {
			const [x, y] = this.#cursor;
			context.beginPath();
			context.arc(x * side, y * side, (PEN * side) / 2, 0, 2 * Math.PI);
			context.lineWidth = side / 150;
			context.strokeStyle = style.getPropertyValue("--accent");
			context.fillStyle = this.#penDown ? context.strokeStyle : "transparent";
			context.fill();
			context.stroke();
		}
	}

	#draw(context, side, color) {
		context.lineWidth = PEN * side;
		context.lineCap = context.lineJoin = "round";
		context.strokeStyle = color;
		for (const stroke of this.#strokes) {
			const points = stroke.map(([x, y]) => [x * side, y * side]);
			context.beginPath();
			context.moveTo(...points[0]);
			// Through the middles between points, which are the curve's controls: no corners.
			for (let i = 1; i < points.length - 1; i++) {
				const [x, y] = points[i];
				context.quadraticCurveTo(x, y, (x + points[i + 1][0]) / 2, (y + points[i + 1][1]) / 2);
			}
			context.lineTo(...points.at(-1));
			context.stroke();
		}
	}
}
