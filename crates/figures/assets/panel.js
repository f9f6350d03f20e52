// Makes the panel that this script stands in follow what runs in the background: requests its notes from the notebook's server.
(function (script) {
  const box = script.closest(".panel");
  const part = (name) => box.querySelector("." + name);
  const button = box.querySelector("button");
  const settings = document.getElementById("jupyter-config-data");
  if (!settings) return; // an exported page: there is no server
  const base = JSON.parse(settings.textContent).baseUrl;

  // The folder lies beside the notebook, whose place the page's address tells.
  const notebook = decodeURIComponent(location.pathname).split("/tree/")[1] || "";
  const beside = notebook.split("/").slice(0, -1).concat(box.dataset.folder.split("/")).map(encodeURIComponent).join("/");
  const key = (document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) || [])[1];

  button.hidden = false;
  button.addEventListener("click", () => {
    button.disabled = true;
    button.textContent = "Stopping …";
    fetch(`${base}api/contents/${beside}/stop`, {
      method: "PUT",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-XSRFToken": key || "" },
      body: JSON.stringify({ type: "file", format: "text", content: "stop" }),
    }).catch(() => { button.disabled = false; button.textContent = "Stop"; });
  });

  // Written into the notebook, so that it stays when the notebook is saved.
  function freeze() {
    const app = window.jupyterapp;
    if (!app) return;
    for (const widget of app.shell.widgets("main")) {
      for (const cell of (widget.content && widget.content.widgets) || []) {
        if (!cell.node.contains(box) || !cell.model.outputs) continue;
        for (let at = 0; at < cell.model.outputs.length; at++) {
          const output = cell.model.outputs.get(at).toJSON();
          const html = output.data && [].concat(output.data["text/html"] || []).join("");
          if (!html || !html.includes('class="panel"')) continue;
          const kept = document.createElement("div");
          kept.className = "panel";
          kept.appendChild(box.querySelector("style").cloneNode(true));
          for (const name of ["preview", "curve", "line"]) kept.appendChild(part(name).cloneNode(true));
          cell.model.outputs.set(at, { ...output, data: { ...output.data, "text/html": kept.outerHTML, "text/plain": part("line").textContent } });
          return;
        }
      }
    }
  }

  async function look() {
    if (!box.isConnected) return;
    try {
      const response = await fetch(`${base}files/${beside}/panel.json?${Date.now()}`, { credentials: "same-origin", cache: "no-store" });
      if (response.ok) {
        const notes = await response.json();
        part("preview").innerHTML = notes.preview;
        part("curve").innerHTML = notes.curve;
        part("line").textContent = notes.line;
        if (notes.state !== "running") {
          button.remove();
          freeze();
          return;
        }
      }
    } catch (error) {
      // The server is busy, or gone; perhaps it comes back.
    }
    setTimeout(look, 1000);
  }
  look();
})(document.currentScript);
