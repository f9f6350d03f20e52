// A pad to draw an image on. What is drawn goes to a file beside the notebook, where a cell reads it.
(function (script) {
  const box = script.closest(".explorer");
  const settings = document.getElementById("jupyter-config-data");
  if (!settings) return; // an exported page: there is no server that takes the drawing
  const base = JSON.parse(settings.textContent).baseUrl;
  const notebook = decodeURIComponent(location.pathname).split("/tree/")[1] || "";
  const path = notebook.split("/").slice(0, -1).concat(box.dataset.file.split("/")).map(encodeURIComponent).join("/");
  const key = (document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) || [])[1];

  const SIDE = Number(box.dataset.side), EDGE = 280, PEN = 22; // pixels of the image, of the canvas, of the line
  const make = (kind, parent, properties) => parent.appendChild(Object.assign(document.createElement(kind), properties));
  const live = document.createElement("div");
  const canvas = make("canvas", live, { width: EDGE, height: EDGE, tabIndex: 0 });
  canvas.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys for itself
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "A pad to draw on: by mouse or finger, or by arrow keys while the space bar holds the pen down");
  const line = make("div", live, { className: "row" });
  const clear = make("button", line, { type: "button", textContent: "clear" });
  const status = make("span", line, { textContent: "Draw here." });
  status.setAttribute("role", "status");
  const pen = canvas.getContext("2d");
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "white" });

  let at = null;
  function wipe() {
    pen.fillStyle = "black";
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }
  function draw(to) {
    pen.beginPath();
    pen.moveTo(...(at || to));
    pen.lineTo(...to);
    pen.stroke();
    at = to;
  }
  function place(event) {
    const frame = canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) * canvas.width / frame.width, (event.clientY - frame.top) * canvas.height / frame.height];
  }
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); at = null; draw(place(event)); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) draw(place(event)); });
  canvas.addEventListener("pointerup", () => { at = null; save(); });

  // By keyboard: arrows move the pen, the space bar sets it down and lifts it.
  let cursor = [canvas.width / 2, canvas.height / 4], down = false;
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === " ") {
      down = !down;
      at = null;
      if (down) draw(cursor); else save();
      status.textContent = down ? "The pen is down." : "The pen is up.";
      return;
    }
    cursor = cursor.map((x, axis) => Math.min(canvas.width - PEN / 2, Math.max(PEN / 2, x + move[axis])));
    if (down) draw(cursor);
  });
  clear.addEventListener("click", () => { wipe(); save(); });

  async function save() {
    const small = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }).getContext("2d");
    small.imageSmoothingQuality = "high";
    small.drawImage(canvas, 0, 0, SIDE, SIDE);
    const rgba = small.getImageData(0, 0, SIDE, SIDE).data;
    const pixels = Array.from({ length: SIDE * SIDE }, (_, pixel) => rgba[4 * pixel]);
    try {
      const response = await fetch(`${base}api/contents/${path}`, {
        method: "PUT",
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", "X-XSRFToken": key || "" },
        body: JSON.stringify({ type: "file", format: "text", content: JSON.stringify(pixels) }),
      });
      status.textContent = response.ok ? "Saved. Run the next cell." : `The server did not save the drawing (${response.status}).`;
    } catch (error) {
      status.textContent = "The server cannot be reached.";
    }
  }
  wipe();
  box.querySelector(".still").replaceWith(live);
})(document.currentScript);
