// A wipe between two pictures that lie on each other: the slider says where one ends and the other begins.
(function (script) {
  const box = script.closest(".explorer");
  const { names, pictures } = JSON.parse(box.querySelector("[type='application/json']").textContent);
  const live = document.createElement("div");
  const make = (kind, parent, properties) => parent.appendChild(Object.assign(document.createElement(kind), properties));
  const stage = make("div", live, { className: "stage" });
  const [below, above] = pictures.map((src, at) => make("img", stage, { src, alt: names[at] }));
  above.className = "above";
  const line = make("label", live, { className: "row" });
  make("span", line, { className: "name", textContent: names[1] });
  const input = make("input", line, { type: "range", min: 0, max: 100, step: 1, value: 50 });
  input.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys for itself
  make("span", line, { className: "name", textContent: names[0] });
  function show() {
    above.style.clipPath = `inset(0 ${100 - input.value}% 0 0)`;
    stage.style.setProperty("--edge", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % ${names[1]}`);
  }
  input.addEventListener("input", show);
  show();
  box.querySelector(".still").replaceWith(live);
})(document.currentScript);
