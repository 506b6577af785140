const plots = [...document.querySelectorAll(".plot")];
const PAPER = 660;  // pixels between the margins of an A4 page

function css(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

// what a figure leaves open comes from the page
function template() {
  const [ink, muted, line, page] = ["--ink", "--muted", "--line", "--page"].map(css);
  const axis = {gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, automargin: true,
    tickfont: {color: muted}, title: {standoff: 8, font: {color: ink}}};
  const clear = "rgba(0,0,0,0)";
  return {layout: {
    paper_bgcolor: clear, plot_bgcolor: clear, hovermode: "closest",
    font: {family: getComputedStyle(document.body).fontFamily, size: 13, color: ink},
    xaxis: axis, yaxis: axis, coloraxis: {colorbar: {outlinewidth: 0, thickness: 12}},
    margin: {l: 10, r: 10, t: 30, b: 10},
    colorway: isDark()
      ? ["#4aa8e0", "#f0783c", "#2bbf93", "#f0b429", "#dc94bb", "#8fd0f5"]
      : ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"],
    hoverlabel: {bgcolor: page, bordercolor: line, font: {color: ink}, align: "left"},
    modebar: {bgcolor: clear, color: line, activecolor: ink},
    annotationdefaults: {font: {color: ink}},
    legend: {bgcolor: clear},
  }};
}

// text on translucent cells: the page's own colour, not what would suit the cell alone
function inked(data) {
  return data.map(trace => trace.meta === "on page"
    ? {...trace, textfont: {...trace.textfont, color: css("--ink")}} : trace);
}

function draw(plot) {
  if (plot.drawn) return;
  plot.drawn = JSON.parse(document.getElementById(`${plot.dataset.figure}-data`).textContent);
  show(plot);
}

function show(plot, width) {
  const {data, layout} = plot.drawn;
  const narrow = plot.clientWidth < 480 && layout.legend?.orientation === "h";
  // slanted words at an axis would run into a legend that hangs from it
  const legend = narrow ? {legend: {...layout.legend, x: 0, y: 0, yref: "container", yanchor: "bottom"}} : {};
  // a finger that scrolls the page must not zoom the figure instead
  const drag = matchMedia("(pointer: coarse)").matches ? {dragmode: false} : {};
  const size = width ? {width} : {};
  Plotly.react(plot, inked(data), {...structuredClone(layout), template: template(), ...legend, ...drag, ...size}, {
    responsive: !width, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: {filename: plot.dataset.figure, scale: 2},
  });
}

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function start() {
  if (!("DecompressionStream" in window)) {
    const words = document.getElementById("no-library");
    words.textContent = "This browser cannot unpack the figures: it needs Chromium 80, Safari 16.4 or Firefox 113, " +
      "or newer. Texts and tables are all here.";
    words.hidden = false;
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpack("library");
  document.head.append(script);
  const seen = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  }, {rootMargin: "600px"});
  plots.forEach(plot => seen.observe(plot));
  root.addEventListener("theme", () => plots.filter(plot => plot.drawn).forEach(plot => show(plot)));
  addEventListener("beforeprint", () => plots.forEach(plot => { draw(plot); show(plot, PAPER); }));
  addEventListener("afterprint", () => plots.forEach(plot => show(plot)));
  // a page turned into paper by a program, without the two events
  paper.addEventListener("change", () => plots.forEach(plot => { draw(plot); show(plot, paper.matches ? PAPER : 0); }));
  root.dataset.library = "ready";
}

if (plots.length) start();
