// Shows the frames of the element that this script stands in as its sliders say.
(function (script) {
  const box = script.closest(".explorer");
  const { sliders, rows, frames, play } = JSON.parse(box.querySelector("[type='application/json']").textContent);
  const live = document.createElement("div");
  const make = (kind, parent, properties) => parent.appendChild(Object.assign(document.createElement(kind), properties));

  const pictures = rows.map((row) => {
    const line = make("div", live, { className: "row" });
    make("span", line, { className: "name", textContent: row.name });
    return make("img", line, { src: row.images[0] });
  });
  const caption = make("p", live, { className: "caption" });
  caption.setAttribute("role", "status");

  const inputs = sliders.map((slider) => {
    const line = make("label", live, { className: "row" });
    make("span", line, { className: "name", textContent: slider.name });
    const input = make("input", line, { type: "range", min: 0, max: slider.stops.length - 1, step: 1, value: slider.first });
    input.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys for itself
    const shown = make("output", line, {});
    input.addEventListener("input", () => { stop(); show(); });
    return { input, shown, stops: slider.stops };
  });

  // Frames stand in the order of a counter whose last digit is the last slider.
  function show() {
    let at = 0;
    for (const { input, shown, stops } of inputs) {
      at = at * stops.length + Number(input.value);
      shown.textContent = stops[input.value];
      input.setAttribute("aria-valuetext", stops[input.value]);
    }
    rows.forEach((row, index) => {
      pictures[index].src = row.images[row.images.length === 1 ? 0 : at];
      pictures[index].alt = `${row.name}: ${inputs.map(({ shown }, s) => `${sliders[s].name} ${shown.textContent}`).join(", ")}`;
    });
    caption.textContent = frames[at];
  }

  let timer = null;
  let button = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    if (button) button.textContent = "▶ play";
  }
  if (play) {
    button = make("button", live, { type: "button", textContent: "▶ play" });
    button.addEventListener("click", () => {
      if (timer) return stop();
      const { input, stops } = inputs[0];
      if (Number(input.value) === stops.length - 1) input.value = 0;
      button.textContent = "⏸ pause";
      timer = setInterval(() => {
        if (!box.isConnected || Number(input.value) === stops.length - 1) return stop();
        input.value = Number(input.value) + 1;
        show();
      }, 120);
    });
  }
  show();
  box.querySelector(".still").replaceWith(live);
})(document.currentScript);
