"use strict";
// Lists every particle of a size bin when its bar or row is chosen. Without this script the bins, their counts and
// their pictures are all there; only the full list of particles is not.
(() => {
  const PAGE = 100;
  const TYPES = { i4: Int32Array, u2: Uint16Array, u1: Uint8Array, f4: Float32Array };
  const column = ([type, text]) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new TYPES[type](bytes.buffer);
  };
  const cell = (row, content, left) => {
    const td = row.insertCell();
    if (content instanceof Node) td.append(content); else td.textContent = content;
    if (left) td.className = "left";
  };
  for (const holder of document.querySelectorAll("script[data-particles]")) {
    const run = holder.dataset.particles, panel = document.getElementById(`${run}-explorer`);
    let data = null, columns = {}, bin = -1, page = 0;
    const load = () => {
      if (data) return;
      data = JSON.parse(holder.textContent);
      for (const [name, packed] of Object.entries(data.columns)) columns[name] = column(packed);
    };
    const draw = () => {
      const [first, listed, total] = data.bins[bin];
      const body = panel.querySelector("tbody"), from = page * PAGE, to = Math.min(from + PAGE, listed);
      body.replaceChildren();
      for (let i = first + from; i < first + to; i++) {
        const id = `${columns.window[i]}-${columns.row[i]}`, row = body.insertRow();
        const pictured = document.getElementById(`${run}-p-${id}`);
        let name = id;
        if (pictured) {
          name = document.createElement("a");
          name.href = `#${run}-p-${id}`;
          name.textContent = id;
        }
        cell(row, name, true);
        cell(row, columns.frame[i]);
        cell(row, columns.time_s[i].toFixed(2));
        cell(row, `${columns.x[i]}, ${columns.y[i]}`);
        cell(row, `${columns.width[i]} \u00d7 ${columns.height[i]}`);
        cell(row, columns.ecd_um[i].toFixed(2));
        cell(row, columns.aspect_ratio[i].toFixed(2));
        cell(row, columns.circularity[i].toFixed(2));
        cell(row, data.classes[columns.class_index[i]], true);
        cell(row, columns.confidence[i].toFixed(2));
      }
      panel.querySelector(".what").textContent = data.names[bin];
      panel.querySelector(".range").textContent = listed
        ? `${from + 1} \u2013 ${to} of ${listed.toLocaleString("en")}` +
          (listed < total ? ` listed here, ${total.toLocaleString("en")} in the record` : "")
        : "no particle in this bin";
      const [back, on] = panel.querySelectorAll("button");
      back.disabled = page === 0;
      on.disabled = to >= listed;
    };
    const show = (k) => {
      load();
      bin = k;
      page = 0;
      document.querySelectorAll(`tr.chosen[id^="${run}-bin-"]`).forEach((r) => r.classList.remove("chosen"));
      document.getElementById(`${run}-bin-${k}`)?.classList.add("chosen");
      panel.hidden = false;
      draw();
    };
    const [back, on] = panel.querySelectorAll("button");
    back.addEventListener("click", () => { page--; draw(); });
    on.addEventListener("click", () => { page++; draw(); });
    const follow = () => {
      const found = location.hash.match(/^#(r\d+)-bin-(\d+)$/);
      if (found && found[1] === run) show(Number(found[2]));
    };
    addEventListener("hashchange", follow);
    follow();
  }
})();
