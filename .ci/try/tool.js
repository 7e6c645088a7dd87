// The tool of the page "Try it": reads a picture, runs the network with ONNX Runtime, and draws the map of a class.
// `enlarge` and `stretch` come from MAP_SCRIPT of cifar_resnet.interactive, which the build puts before this file.
const place = document.getElementById('try-tool'), settings = JSON.parse(place.querySelector('script[type="application/json"]').textContent);
const SIDE = 32, SHOWN = 256, MEGA = 1e6;
let session, work = Promise.resolve(), latest = 0, result;

// ---------------------------------------------------------------------------------- what is on the page

function build(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function addFigure(box, kind) {
  const canvas = build('canvas', {class: kind, role: 'img'}), caption = build('figcaption');
  box.append(build('figure', {}, canvas, caption));
  return {canvas, caption};
}

const megabytes = Math.round(settings.files.reduce((sum, file) => sum + file.size, 0)/MEGA);
const start = build('button', {type: 'button', class: 'first'}, `Load the network (${megabytes} MB)`);
const bar = build('progress', {max: 1, value: 0, 'aria-label': 'Loading', hidden: ''});
const choose = build('button', {type: 'button', class: 'first'}, 'Choose a picture'), input = build('input', {type: 'file', accept: 'image/*', hidden: ''});
const ways = build('p', {hidden: ''}, choose, ' or drop one here, or paste one.', input);
const status = build('p', {role: 'status', 'aria-live': 'polite'});
const pictures = build('div', {class: 'pictures', hidden: ''}), seen = addFigure(pictures, 'pixels'), map = addFigure(pictures, 'map');
const classes = build('fieldset', {hidden: ''});
place.replaceChildren(build('p', {}, start), bar, ways, status, pictures, classes);

function say(text) { status.textContent = text; }

// ---------------------------------------------------------------------------------- load the network

async function download({name, size}, report) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(size), reader = response.body.getReader();
  let received = 0;
  for (let part; !(part = await reader.read()).done; received += part.value.length) {
    if (received + part.value.length > size) throw new Error(`${name} is longer than it should be`);
    bytes.set(part.value, received);
    report(part.value.length);
  }
  if (received != size) throw new Error(`${name} is incomplete`);
  return bytes;
}

async function load() {
  const total = settings.files.reduce((sum, file) => sum + file.size, 0);
  let received = 0;
  const report = length => { received += length; bar.value = received/total; };
  const [network, runtime] = await Promise.all(settings.files.map(file => download(file, report)));
  say('Starting the network …');
  const ort = await import(new URL(settings.script, import.meta.url));
  Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: runtime});
  const made = await ort.InferenceSession.create(network, {executionProviders: ['wasm']});
  return pixels => made.run({images: new ort.Tensor('uint8', pixels, [1, SIDE, SIDE, 3])});
}

start.onclick = async () => {
  start.disabled = true;
  bar.hidden = false;
  bar.value = 0;
  say('Loading …');
  try {
    session = await load();
    start.parentElement.hidden = true;
    ways.hidden = false;
    choose.focus();
    say('The network is ready.');
  } catch (error) {
    start.disabled = false;
    say(`The network could not be loaded (${error.message}). Check the connection, and try again.`);
  }
  bar.hidden = true;
};

// ---------------------------------------------------------------------------------- read a picture

const MOST = 3000;  // pixels in a row of the square: the canvas of some phones holds not many more

async function readPixels(file) {  // the central square, 32 × 32, as the package's read_image makes it
  const picture = await createImageBitmap(file, {colorSpaceConversion: 'none'});
  const side = Math.min(picture.width, picture.height), shrink = Math.min(1, MOST/side), reach = Math.ceil(3*Math.max(side/SIDE, 1)) + 1;
  const [x, width, left] = cut(picture.width, side, reach), [y, height, top] = cut(picture.height, side, reach);
  const canvas = build('canvas', {width: Math.round(width*shrink), height: Math.round(height*shrink)}), context = canvas.getContext('2d', {willReadFrequently: true});
  context.fillStyle = '#fff';  // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, x, y, width, height, 0, 0, canvas.width, canvas.height);
  picture.close();
  return resize(context.getImageData(0, 0, canvas.width, canvas.height).data, canvas.width, canvas.height, left*shrink, top*shrink, side*shrink);
}

function cut(length, side, reach) {  // [first pixel, how many, where the square begins in them]: the square, and what the filter sees beyond its edges
  const start = (length - side)/2, from = Math.max(0, Math.floor(start - reach)), to = Math.min(length, Math.ceil(start + side + reach));
  return [from, to - from, start - from];
}

function lanczos(x) {
  const sinc = v => v ? Math.sin(Math.PI*v)/(Math.PI*v) : 1;
  return Math.abs(x) < 3 ? sinc(x)*sinc(x/3) : 0;
}

function findWeights(size, first, length) {  // for each of the 32 results: [first pixel, weights], as Pillow computes them
  const scale = length/SIDE, stretch = Math.max(scale, 1), reach = 3*stretch;
  return Array.from({length: SIDE}, (_, i) => {
    const center = first + (i + .5)*scale, from = Math.max(0, Math.trunc(center - reach + .5)), to = Math.min(size, Math.trunc(center + reach + .5));
    const weights = Array.from({length: to - from}, (_, k) => lanczos((k + from - center + .5)/stretch)), sum = weights.reduce((a, b) => a + b, 0);
    return [from, weights.map(weight => weight/sum)];
  });
}

function resize(rgba, width, height, left, top, side) {
  const columns = findWeights(width, left, side), rows = findWeights(height, top, side);
  const narrow = new Uint8ClampedArray(height*SIDE*3), small = new Uint8ClampedArray(SIDE*SIDE*3);
  const add = (values, first, step, weights) => {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k]*values[first + k*step];
    return sum;
  };
  for (let i = 0; i < narrow.length; i++) {
    const pixel = Math.floor(i/3), [from, weights] = columns[pixel % SIDE];
    narrow[i] = add(rgba, 4*(width*Math.floor(pixel/SIDE) + from) + i % 3, 4, weights);
  }
  for (let i = 0; i < small.length; i++) {
    const [from, weights] = rows[Math.floor(i/(3*SIDE))];
    small[i] = add(narrow, 3*SIDE*from + i % (3*SIDE), 3*SIDE, weights);
  }
  return small;
}

// ---------------------------------------------------------------------------------- the answer

function percent(p) { return p < .001 ? '<0.1%' : p > .999 ? '>99.9%' : `${(100*p).toFixed(p >= .01 && p <= .99 ? 0 : 1)}%`; }

function take(file) {  // one after another; only the last one is shown
  const mine = ++latest;
  work = work.then(async () => {
    if (mine != latest) return;
    say('Reading the picture …');
    let pixels;
    try { pixels = await readPixels(file); } catch { return say(`${file.name || 'This'} is not a picture that this browser can read.`); }
    const {probabilities, maps} = await session(new Uint8Array(pixels));
    if (mine == latest) show({pixels, probabilities: [...probabilities.data], maps: maps.data});
  }).catch(error => say(`Something went wrong: ${error.message}`));
}

function show(answer) {
  result = answer;
  paint(seen.canvas, SIDE, i => answer.pixels.subarray(3*i, 3*i + 3));
  seen.caption.textContent = 'What the network sees: 32 × 32 pixels';
  seen.canvas.setAttribute('aria-label', 'Your picture, 32 × 32 pixels');
  const order = answer.probabilities.map((_, i) => i).sort((a, b) => answer.probabilities[b] - answer.probabilities[a]);
  classes.replaceChildren(build('legend', {}, 'Probability of each class; choose one to see its map'), ...order.map((k, rank) => {
    const p = answer.probabilities[k], radio = build('input', {type: 'radio', name: 'class', value: k, ...rank ? {} : {checked: ''}}), filled = build('span');
    filled.style.width = `${100*p}%`;
    radio.onchange = () => drawMap(k);
    return build('label', {'data-probability': p}, radio, build('span', {class: 'name'}, settings.classes[k]), build('span', {class: 'bar', 'aria-hidden': 'true'}, filled), build('span', {class: 'percent'}, percent(p)));
  }));
  pictures.hidden = classes.hidden = false;
  say(`${settings.classes[order[0]]}, ${percent(answer.probabilities[order[0]])}`);
  drawMap(order[0]);
}

// ---------------------------------------------------------------------------------- the map

function drawMap(k) {
  const cells = settings.cells, own = result.maps.slice(k*cells*cells, (k + 1)*cells*cells).map(value => Math.max(value, 0));
  const heat = enlarge(stretch(enlarge(own, cells, SIDE)), SIDE, SHOWN), name = settings.classes[k], scale = SHOWN/SIDE;
  const mixed = new Float32Array(3*SHOWN*SHOWN);
  for (let i = 0; i < mixed.length; i++) {
    const pixel = Math.floor(i/3), row = Math.floor(pixel/SHOWN), column = pixel % SHOWN;
    const below = result.pixels[3*(SIDE*Math.floor(row/scale) + Math.floor(column/scale)) + i % 3];
    mixed[i] = settings.share*below + (1 - settings.share)*settings.colors[3*Math.trunc(255*heat[pixel]) + i % 3];
  }
  const most = mixed.reduce((a, b) => Math.max(a, b), 1);
  paint(map.canvas, SHOWN, i => mixed.subarray(3*i, 3*i + 3).map(value => Math.trunc(255*value/most)));
  const none = !own.some(value => value > 0);
  map.caption.textContent = none ? `No pixel supports ${name}` : `HiResCAM: what supports ${name} (red: strongly; blue: weakly)`;
  map.canvas.setAttribute('aria-label', none ? `An empty map: no pixel supports ${name}` : `Your picture under a color map of the pixels that support ${name}`);
}

function paint(canvas, side, colorOf) {
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let i = 0; i < side*side; i++) image.data.set([...colorOf(i), 255], 4*i);
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// ---------------------------------------------------------------------------------- choose, drop, paste

function offer(files, missing) {
  if (!session) return say('Load the network first.');
  if (files.length) take(files[0]); else if (missing) say(missing);
}

choose.onclick = () => input.click();
input.onchange = () => { offer(input.files); input.value = ''; };
place.ondragover = event => { event.preventDefault(); place.classList.add('over'); };
place.ondragleave = event => { if (!place.contains(event.relatedTarget)) place.classList.remove('over'); };
place.ondrop = event => {
  event.preventDefault();
  place.classList.remove('over');
  offer(event.dataTransfer.files, 'What you dropped is not a file: save the picture first, then drop the file.');
};
document.addEventListener('paste', event => {
  if (event.target.closest?.('input:not([type=radio]), textarea')) return;
  const {files} = event.clipboardData;
  if (files.length || session) offer(files, 'The clipboard holds no picture.');
});
