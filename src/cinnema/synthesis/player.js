// Plays one photograph: its layers, warped as `cinnema.synthesis.nature_renderer` does, or videos.
//
// Times are in steps of a kind. Fields lie on GRID x GRID points; displacements are in picture
// widths and heights. A displacement is one array: x of all points, then y.
"use strict";

const GRID = 32; // cinnema.models.nature.motion.GRID
const POINTS = GRID * GRID;
const TEXTURES = 4; // most textures that are visible at a time
const MESH = 128; // cells of the mesh on which displacements are enlarged, along each side
const SMALL = 128; // width and height of mirrored colours
const RELATED = 1.5 / 128; // cinnema.models.nature.rendering

const element = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** Return the numbers of a base64 text, as an array of the given type. */
const decoded = (text, Kind) =>
  new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

/** Return the bilinear sample of one component of a field at a place in cells, clamped. */
function sample(field, start, x, y) {
  const [cx, cy] = [clamp(x, 0, GRID - 1), clamp(y, 0, GRID - 1)];
  const [left, top] = [Math.min(Math.floor(cx), GRID - 2), Math.min(Math.floor(cy), GRID - 2)];
  const [u, v] = [cx - left, cy - top];
  const at = start + top * GRID + left;
  const upper = field[at] * (1 - u) + field[at + 1] * u;
  const lower = field[at + GRID] * (1 - u) + field[at + GRID + 1] * u;
  return upper * (1 - v) + lower * v;
}

/** Return the paths back along a static velocity, after 0 to `count` steps. */
function follow(velocity, count) {
  let path = new Float32Array(2 * POINTS);
  const paths = [path];
  for (let step = 0; step < count; step++) {
    const next = new Float32Array(2 * POINTS);
    for (let i = 0; i < POINTS; i++) {
      const x = (i % GRID) - velocity[i] * GRID;
      const y = Math.floor(i / GRID) - velocity[POINTS + i] * GRID;
      next[i] = sample(path, 0, x, y) - velocity[i];
      next[POINTS + i] = sample(path, POINTS, x, y) - velocity[POINTS + i];
    }
    paths.push((path = next));
  }
  return paths;
}

/** Write the entries of a table at fractional places, one for each point, into `out`. */
function lookUp(table, place, i, out) {
  const at = clamp(place, 0, table.length - 1);
  const low = Math.min(Math.floor(at), table.length - 2);
  for (const j of [i, POINTS + i]) {
    out[j] += table[low][j] + (at - low) * (table[low + 1][j] - table[low][j]);
  }
}

/** The warps of one kind at any time: `KindMotion` of cinnema.models.nature.motion. */
class Motion {
  constructor(kind) {
    this.kind = kind;
    this.smooth = decoded(kind.smooth, Float32Array); // (GRID, 16): blurs noise and enlarges it
    this.velocities = decoded(kind.velocities, Float32Array);
  }

  /** Take the motion of a place between two stops, given the churn's numbers there. */
  take(place, numbers) {
    const { kind } = this;
    const stop = Math.min(Math.floor(place), kind.strengths.length - 1);
    const after = Math.min(stop + 1, kind.strengths.length - 1);
    const mix = (first, second) => first + (place - stop) * (second - first);
    const strength = mix(kind.strengths[stop], kind.strengths[after]);
    const fields = this.enlarged(numbers);
    this.waves = kind.omega.flatMap((_, mode) => [0, 1].map((phase) => {
      const [x, y, gain] = [0, 1, 2].map((c) => fields[(phase * kind.omega.length + mode) * 3 + c]);
      const wave = new Float32Array(2 * POINTS);
      for (let i = 0; i < POINTS; i++) {
        wave[i] = x[i] * kind.reach[mode] * strength;
        wave[POINTS + i] = y[i] * kind.reach[mode] * strength * kind.upright;
      }
      return { mode, phase, wave, gain: gain.map((g) => g * kind.flicker[mode]) };
    }));
    this.offset = fields.at(-1).map((p) =>
      clamp(p, -kind.maxJitter, kind.maxJitter) * kind.jitter * kind.half);
    this.spread = [Math.min(...this.offset), Math.max(...this.offset)];
    const coefficients = [0, 1].map((axis) => Array.from({ length: 16 }, (_, n) => mix(
      this.velocities[(stop * 2 + axis) * 16 + n], this.velocities[(after * 2 + axis) * 16 + n])));
    const velocity = fieldOf(coefficients);
    const count = Math.ceil(kind.longest) + 1;
    this.onward = follow(velocity, count);
    this.back = follow(velocity.map((v) => -v), count);
    this.churnAtBirth = new Map();
  }

  /** Return the smooth field of each of the churn's 37 arrays of numbers. */
  enlarged(numbers) {
    const side = this.smooth.length / GRID;
    return Array.from({ length: numbers.length / side ** 2 }, (_, n) => {
      const rows = new Float32Array(GRID * side), field = new Float32Array(POINTS);
      for (let i = 0; i < GRID; i++) for (let k = 0; k < side; k++) for (let j = 0; j < side; j++) {
        rows[i * side + j] += this.smooth[i * side + k] * numbers[(n * side + k) * side + j];
      }
      for (let i = 0; i < GRID; i++) for (let j = 0; j < GRID; j++) for (let k = 0; k < side; k++) {
        field[i * GRID + j] += rows[i * side + k] * this.smooth[j * side + k];
      }
      return field;
    });
  }

  churn(time) {
    const out = new Float32Array(2 * POINTS);
    for (const { mode, phase, wave } of this.waves) {
      const angle = this.kind.omega[mode] * time;
      const factor = phase ? Math.sin(angle) : Math.cos(angle);
      for (let i = 0; i < out.length; i++) out[i] += factor * wave[i];
    }
    return out;
  }

  /** Return the factor on brightness; 1 at time 0. */
  gain(time) {
    const out = new Float32Array(POINTS).fill(1);
    if (!this.kind.flicker.some((share) => share > 0)) return out;
    out.fill(0);
    for (const { mode, phase, gain } of this.waves) {
      const angle = this.kind.omega[mode] * time;
      const factor = phase ? Math.sin(angle) : Math.cos(angle) - 1;
      for (let i = 0; i < POINTS; i++) out[i] += factor * gain[i];
    }
    return out.map(Math.exp);
  }

  /** Return the time of a birth at a point; those of a loop end at its end, everywhere. */
  birth(n, i) {
    const { half, last } = this.kind;
    return n * half + (n === 0 || n === last ? 0 : this.offset[i]);
  }

  /** Return the textures that are visible at a time, each a displacement and a weight. */
  warps(time) {
    const now = this.churn(time);
    const { half, last, renewed } = this.kind;
    const first = renewed ? Math.max(0, Math.floor((time - this.spread[1]) / half) - 1) : 0;
    const textures = [];
    for (let n = first; n <= (renewed ? last ?? Infinity : 0); n++) {
      if (n > 1 && time <= (n - 1) * half + this.spread[0]) break;
      const texture = this.texture(n, time, now);
      if (texture) textures.push(texture);
    }
    return textures.slice(0, TEXTURES);
  }

  texture(n, time, now) {
    const { renewed, last } = this.kind;
    const displacement = Float32Array.from(now), weight = new Float32Array(POINTS);
    const before = this.churnAt(n);
    let visible = false;
    for (let i = 0; i < POINTS; i++) {
      const birth = this.birth(n, i), age = time - birth;
      let share = 1;
      if (age >= 0 && renewed && n !== last) share = 1 - age / (this.birth(n + 1, i) - birth);
      if (age < 0 && n > 0) share = 1 + age / (birth - this.birth(n - 1, i));
      weight[i] = clamp(share, 0, 1);
      visible ||= weight[i] > 0;
      displacement[i] -= before[i];
      displacement[POINTS + i] -= before[POINTS + i];
      lookUp(age >= 0 ? this.onward : this.back, Math.abs(age), i, displacement);
    }
    return visible && { displacement, weight };
  }

  /** Return the churn at a birth, which has its own time at each point. */
  churnAt(n) {
    if (!this.churnAtBirth.has(n)) {
      const births = Array.from({ length: POINTS }, (_, i) => this.birth(n, i));
      const low = Math.floor(Math.min(...births)), high = Math.ceil(Math.max(...births));
      const table = Array.from({ length: high - low + 2 }, (_, step) => this.churn(low + step));
      const out = new Float32Array(2 * POINTS);
      births.forEach((birth, i) => lookUp(table, birth - low, i, out));
      if (this.churnAtBirth.size > 8) this.churnAtBirth.clear();
      this.churnAtBirth.set(n, out);
    }
    return this.churnAtBirth.get(n);
  }
}

/** Return the velocity field of coefficients on products of cosines, as `cosines` orders them. */
function fieldOf(coefficients) {
  const waves = Array.from({ length: 4 }, (_, k) =>
    Float32Array.from({ length: GRID }, (_, i) => Math.cos((Math.PI * k * (i + 0.5)) / GRID)));
  const out = new Float32Array(2 * POINTS);
  coefficients.forEach((row, axis) => row.forEach((coefficient, n) => {
    const down = waves[Math.floor(n / 4)], across = waves[n % 4];
    for (let i = 0; i < POINTS; i++) {
      out[axis * POINTS + i] += coefficient * down[Math.floor(i / GRID)] * across[i % GRID];
    }
  }));
  return out;
}

/** Return the share of the variance of detail that the mean of textures keeps at a point. */
function retained(textures, i) {
  let out = 0;
  textures.forEach((one, a) => {
    out += one.weight[i] ** 2;
    for (const other of textures.slice(0, a)) {
      const x = one.displacement[i] - other.displacement[i];
      const y = one.displacement[POINTS + i] - other.displacement[POINTS + i];
      const alike = Math.exp(-(x * x + y * y) / (2 * RELATED ** 2));
      out += 2 * one.weight[i] * other.weight[i] * alike;
    }
  });
  return out;
}

const VERTEX = `#version 300 es
precision highp float;
uniform highp sampler2DArray fields; // x, y, weight of each texture; last: gain, contrast
uniform int count;
uniform float upward;
out vec2 at;
out vec3 warps[${TEXTURES}];
out vec2 light;

vec4 field(ivec2 cell, int i) {
  return texelFetch(fields, ivec3(clamp(cell, 0, ${GRID - 1}), i), 0);
}
vec4 bilinear(vec2 place, int i) {
  ivec2 low = ivec2(floor(place));
  vec2 f = fract(place);
  return mix(mix(field(low, i), field(low + ivec2(1, 0), i), f.x),
             mix(field(low + ivec2(0, 1), i), field(low + 1, i), f.x), f.y);
}
vec4 cubicTaps(float f) { // of torch's bicubic: a = -0.75
  vec4 x = vec4(f + 1., f, 1. - f, 2. - f);
  vec2 far = ((-.75 * x.xw + 3.75) * x.xw - 6.) * x.xw + 3.;
  vec2 near = (1.25 * x.yz - 2.25) * x.yz * x.yz + 1.;
  return vec4(far.x, near, far.y);
}
vec2 bicubic(vec2 place, int i) {
  ivec2 low = ivec2(floor(place)) - 1;
  vec4 across = cubicTaps(fract(place.x)), down = cubicTaps(fract(place.y));
  vec2 sum = vec2(0);
  for (int y = 0; y < 4; y++) for (int x = 0; x < 4; x++)
    sum += down[y] * across[x] * field(low + ivec2(x, y), i).xy;
  return sum;
}
void main() {
  int side = ${MESH + 1};
  at = vec2(gl_VertexID % side, gl_VertexID / side) / float(${MESH});
  vec2 place = at * float(${GRID}) - .5;
  for (int i = 0; i < ${TEXTURES}; i++)
    warps[i] = i < count ? vec3(bicubic(place, i), bilinear(place, i).z) : vec3(0);
  light = bilinear(place, ${TEXTURES}).xy;
  gl_Position = vec4(at.x * 2. - 1., (at.y * 2. - 1.) * upward, 0, 1);
}`;

const NO_CHANGE = "const float NONE = 128. / 255.;"; // of mirrored colours

const FRAGMENT = `#version 300 es
precision highp float;
${NO_CHANGE}
uniform sampler2D before, plate, low, base, alpha, mirrored;
uniform vec2 size;
in vec2 at;
in vec3 warps[${TEXTURES}];
in vec2 light; // gain, and gain times what restores the contrast
out vec4 colour;

vec3 colourAt(sampler2D picture, vec2 place) { return textureLod(picture, place, 0.).rgb; }

vec3 warped(vec2 place) { // bicubic with a = -0.75; two taps of positive weight are one
  vec2 texel = place * size - .5, start = floor(texel), f = texel - start;
  vec2 g = 1. - f;
  vec2 w0 = -.75 * f * g * g, w3 = -.75 * g * f * f;
  vec2 w1 = (1.25 * f - 2.25) * f * f + 1., w2 = (1.25 * g - 2.25) * g * g + 1.;
  vec2 w12 = w1 + w2;
  vec2 p0 = (start - .5) / size, p3 = (start + 2.5) / size, p12 = (start + .5 + w2 / w12) / size;
  vec3 row0 = w0.x * colourAt(plate, p0) + w12.x * colourAt(plate, vec2(p12.x, p0.y))
    + w3.x * colourAt(plate, vec2(p3.x, p0.y));
  vec3 row1 = w0.x * colourAt(plate, vec2(p0.x, p12.y)) + w12.x * colourAt(plate, p12)
    + w3.x * colourAt(plate, vec2(p3.x, p12.y));
  vec3 row3 = w0.x * colourAt(plate, vec2(p0.x, p3.y)) + w12.x * colourAt(plate, vec2(p12.x, p3.y))
    + w3.x * colourAt(plate, p3);
  return clamp(w0.y * row0 + w12.y * row1 + w3.y * row3, 0., 1.);
}
void main() {
  colour = vec4(colourAt(before, at), 1);
  float share = clamp((colourAt(alpha, at).r - .02) / .96, 0., 1.); // without traces of compression
  if (share == 0.) return;
  vec3 mean = vec3(0), deep = vec3(0), ground = colourAt(base, at);
  for (int i = 0; i < ${TEXTURES}; i++) if (warps[i].z > 0.) {
    vec2 place = at + warps[i].xy;
    mean += warps[i].z * warped(place);
    deep += warps[i].z * colourAt(low, place);
  }
  vec3 lit = clamp(light.x * ground + light.y * mean + (light.x - light.y) * deep, 0., 1.);
  vec3 change = lit - ground - colourAt(plate, at) + colourAt(mirrored, at) - NONE;
  colour.rgb += share * change;
}`;

// The change of the sky that water mirrors, softly, as cinnema.models.nature.reflection does.
const MIRRORED_VERTEX = `#version 300 es
out vec2 at;
void main() {
  at = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.; // one triangle around all
  gl_Position = vec4(at * 2. - 1., 0, 1);
}`;

const MIRRORED_FRAGMENT = `#version 300 es
precision highp float;
${NO_CHANGE}
uniform sampler2D before, still;
uniform float axis, strength;
uniform vec2 soft, levels;
in vec2 at;
out vec4 colour;
void main() {
  vec4 sum = vec4(0);
  for (int i = -5; i <= 5; i++) for (int j = -5; j <= 5; j++) {
    vec2 place = at + vec2(i, j) * .5 * soft;
    float weight = exp(-.125 * float(i * i + j * j)), source = 2. * axis - place.y;
    if (place.x < 0. || place.x > 1. || place.y > 1.) continue;
    sum.a += weight;
    if (source < 0. || source >= place.y) continue;
    vec2 seen = vec2(place.x, source);
    sum.rgb += weight
      * (textureLod(before, seen, levels.x).rgb - textureLod(still, seen, levels.y).rgb);
  }
  colour = vec4(NONE + strength * sum.rgb / sum.a, 1);
}`;

/** Draws frames on a canvas of the photograph's size. */
class Renderer {
  constructor(canvas, still, layers) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false });
    if (!gl) throw new Error("This browser has no WebGL 2, so the picture stands still.");
    if (gl.getParameter(gl.MAX_TEXTURE_SIZE) < Math.max(canvas.width, canvas.height)) {
      throw new Error("The picture is too large for this graphics card, so it stands still.");
    }
    this.gl = gl;
    this.size = [canvas.width, canvas.height];
    this.warping = this.compiled(VERTEX, FRAGMENT, ["before", "plate", "low", "base", "alpha",
      "mirrored", "fields", "count", "upward", "size"]);
    this.mirroring = this.compiled(MIRRORED_VERTEX, MIRRORED_FRAGMENT,
      ["before", "still", "axis", "strength", "soft", "levels"]);
    this.numIndices = this.meshed();
    this.still = this.texture(still);
    this.minify(this.still);
    this.mirror = this.target(SMALL, SMALL);
    this.unchanged = this.texture(new ImageData(new Uint8ClampedArray(4).fill(128), 1));
    const black = this.texture(new ImageData(1, 1));
    this.layers = layers.map((layer) => ({
      motion: layer.motion,
      alpha: this.texture(layer.alpha),
      plate: this.texture(composed(still, layer.patch, layer.falls ? "difference" : "source-over")),
      low: layer.low ? this.texture(layer.low) : black,
      base: layer.falls ? this.texture(layer.patch) : black,
      reflection: layer.reflection,
      fields: this.fieldTexture(),
    }));
    this.targets = [];
    this.resize(1);
  }

  /** Draw at a fraction of the photograph's size. */
  resize(scale) {
    const { gl } = this;
    [gl.canvas.width, gl.canvas.height] = this.size.map((side) => Math.ceil(side * scale));
    for (const { texture, frame } of this.targets) {
      gl.deleteTexture(texture);
      gl.deleteFramebuffer(frame);
    }
    const target = () => this.target(gl.canvas.width, gl.canvas.height);
    this.targets = this.layers.length > 1 ? [target(), target()] : [];
  }

  /** Return a program and the places of its uniforms, by their names. */
  compiled(vertex, fragment, names) {
    const { gl } = this, program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error(`This browser cannot draw the motion: ${gl.getProgramInfoLog(program)}`);
    }
    const place = names.map((name) => [name, gl.getUniformLocation(program, name)]);
    return { program, place: Object.fromEntries(place) };
  }

  /** Load the triangles of the mesh, and return the number of their corners. */
  meshed() {
    const { gl } = this, corners = [], side = MESH + 1;
    for (let y = 0; y < MESH; y++) for (let x = 0; x < MESH; x++) {
      const i = y * side + x;
      corners.push(i, i + 1, i + side, i + side, i + 1, i + side + 1);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(corners), gl.STATIC_DRAW);
    return corners.length;
  }

  texture(source) {
    const { gl } = this, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.MIRRORED_REPEAT);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.MIRRORED_REPEAT);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, source);
    return texture;
  }

  fieldTexture() {
    const { gl } = this, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA32F, GRID, GRID, TEXTURES + 1);
    return texture;
  }

  target(width, height) {
    const { gl } = this;
    const texture = this.texture(new ImageData(width, height)), frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { texture, frame };
  }

  /** Draw the frame of a time in seconds. */
  draw(seconds) {
    const { gl } = this, { place, program } = this.warping;
    let before = this.still;
    this.layers.forEach((layer, n) => {
      const target = n + 1 < this.layers.length ? this.targets[n % 2] : null;
      const { plate, low, base, alpha, reflection } = layer;
      const mirrored = reflection ? this.mirrored(before, reflection) : this.unchanged;
      gl.useProgram(program);
      gl.bindFramebuffer(gl.FRAMEBUFFER, target && target.frame);
      gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
      this.bind(place, { before, plate, low, base, alpha, mirrored });
      gl.activeTexture(gl.TEXTURE6);
      gl.bindTexture(gl.TEXTURE_2D_ARRAY, layer.fields);
      gl.uniform1i(place.fields, 6);
      gl.uniform2f(place.size, ...this.size);
      gl.uniform1i(place.count, this.load(layer.motion, seconds * layer.motion.kind.rate));
      gl.uniform1f(place.upward, target ? 1 : -1); // rows of a canvas begin at the bottom
      gl.drawElements(gl.TRIANGLES, this.numIndices, gl.UNSIGNED_SHORT, 0);
      before = target && target.texture;
    });
  }

  /** Compute the smaller copies of a texture. */
  minify(texture) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  }

  bind(place, textures) {
    const { gl } = this;
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(place[name], unit);
    });
  }

  /** Return the change of the sky, which is all that has been drawn yet, as the water mirrors it. */
  mirrored(before, { axis, strength, soft }) {
    const { gl, still } = this, { place, program } = this.mirroring;
    gl.useProgram(program);
    this.minify(before);
    this.bind(place, { before, still });
    const levels = [gl.canvas.width, this.size[0]].map((w) => Math.max(0, Math.log2(w / SMALL)));
    gl.uniform2f(place.levels, ...levels);
    gl.uniform2f(place.soft, ...soft);
    gl.uniform1f(place.axis, axis);
    gl.uniform1f(place.strength, strength);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.mirror.frame);
    gl.viewport(0, 0, SMALL, SMALL);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    return this.mirror.texture;
  }

  /** Load the fields of a layer at a time into its texture, and return the number of textures. */
  load(motion, time) {
    const { gl } = this, textures = motion.warps(time), gain = motion.gain(time);
    const data = new Float32Array((TEXTURES + 1) * POINTS * 4);
    textures.forEach(({ displacement, weight }, n) => {
      for (let i = 0, at = n * POINTS * 4; i < POINTS; i++, at += 4) {
        data[at] = displacement[i];
        data[at + 1] = displacement[POINTS + i];
        data[at + 2] = weight[i];
      }
    });
    for (let i = 0, at = TEXTURES * POINTS * 4; i < POINTS; i++, at += 4) {
      data[at] = gain[i];
      data[at + 1] = gain[i] / Math.sqrt(retained(textures, i));
    }
    gl.texSubImage3D(
      gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, GRID, GRID, TEXTURES + 1, gl.RGBA, gl.FLOAT, data);
    return textures.length;
  }
}

/** Return a picture over another one, or their difference. */
function composed(under, over, mode) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [under.naturalWidth, under.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(under, 0, 0);
  context.globalCompositeOperation = mode;
  context.drawImage(over, 0, 0);
  return canvas;
}

async function loaded(source) {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  return picture;
}

/** Shows layers that move: draws the frame of any time and any place between futures. */
class LayerPlayer {
  static async open(scene, still, stage) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [still.naturalWidth, still.naturalHeight];
    const layers = await Promise.all(scene.layers.map(async (layer) => ({
      motion: new Motion(layer.motion),
      falls: layer.falls,
      patch: await loaded(layer.patch),
      alpha: await loaded(layer.alpha),
      low: layer.low && await loaded(layer.low),
      reflection: layer.reflection,
    })));
    const renderer = new Renderer(canvas, still, layers);
    stage.append(canvas);
    return new LayerPlayer(scene, renderer, canvas);
  }

  constructor(scene, renderer, canvas) {
    Object.assign(this, { scene, renderer, canvas });
    this.numbers = scene.numbers.map(({ scale, values }) =>
      Float32Array.from(decoded(values, Int8Array), (value) => value * scale));
    this.choose(0);
  }

  /** Take the motion of a future; 1.5 is half way between the second and the third. */
  choose(future) {
    const place = future * this.scene.stopsPerFuture;
    const stop = Math.floor(place), after = Math.min(stop + 1, this.scene.mixes.length - 1);
    const numbers = new Float32Array(this.numbers[0].length);
    this.numbers.forEach((part, n) => {
      const first = this.scene.mixes[stop][n], second = this.scene.mixes[after][n];
      const factor = first + (place - stop) * (second - first);
      part.forEach((value, i) => { numbers[i] += factor * value; });
    });
    this.renderer.layers.forEach((layer) => layer.motion.take(place, numbers));
  }

  /** Draw fewer pixels, on a slow graphics card. */
  shrink() {
    const { width } = this.canvas;
    if (width > 600) this.renderer.resize(width / this.renderer.size[0] / 2);
  }

  /** Draw the frame of a time in seconds. */
  draw(seconds) {
    const { loop, seconds: length } = this.scene;
    let time = seconds;
    if (loop === "seamless") time = seconds % length;
    if (loop === "pingpong") time = length - Math.abs(length - (seconds % (2 * length)));
    this.renderer.draw(time);
  }
}

/** Shows videos, of models that paint their frames. */
class VideoPlayer {
  static async open(scene, still, stage) {
    const film = document.createElement("video");
    Object.assign(film, { muted: true, loop: true, playsInline: true });
    stage.append(film);
    return new VideoPlayer(scene, film);
  }

  constructor(scene, film) {
    Object.assign(this, { scene, film });
    this.choose(0);
  }

  choose(future) {
    const source = this.scene.videos[Math.round(future)];
    if (this.film.src !== source) this.film.src = source;
  }

  /** Keep the video running or standing. */
  run(playing, speed) {
    this.film.playbackRate = speed;
    if (playing === this.film.paused) playing ? this.film.play().catch(() => {}) : this.film.pause();
  }
}

/** The controls, and the clock. */
class Face {
  constructor(scene, player) {
    this.player = player;
    this.time = 0;
    this.shown = {}; // the time and the future that the canvas shows
    this.slow = 0;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    element("controls").hidden = false;
    element("controls").onsubmit = (event) => event.preventDefault();
    element("play").onclick = element("stage").onclick = () => this.toggle();
    element("speed").oninput = element("future").oninput = () => this.show();
    const future = element("future");
    element("futures").hidden = scene.numFutures < 2;
    future.max = scene.numFutures - 1;
    future.step = scene.layers ? 0.05 : 1;
    this.show();
    requestAnimationFrame((now) => this.tick(now, now));
  }

  get speed() {
    return 2 ** element("speed").value;
  }

  toggle() {
    this.playing = !this.playing;
    this.show();
  }

  /** Write on the controls what they say. */
  show() {
    element("play").textContent = this.playing ? "Pause" : "Play";
    element("speed-shown").textContent = `${this.speed.toFixed(2)} ×`;
    const { value, max } = element("future"), first = Math.floor(value) + 1;
    element("future-shown").textContent =
      Number.isInteger(Number(value)) ? `${first} of ${Number(max) + 1}` : `${first} to ${first + 1}`;
  }

  tick(before, now) {
    const { player, playing, shown } = this, future = Number(element("future").value);
    if (playing) this.time += (Math.min(now - before, 100) / 1000) * this.speed;
    if (future !== shown.future) player.choose(future);
    if (player.run) player.run(playing, this.speed);
    else if (future !== shown.future || this.time !== shown.time) {
      player.draw(this.time);
      this.slow = Math.max(0, this.slow + (now - before > 50 ? 1 : -1));
      if (this.slow > 20) {
        player.shrink();
        this.slow = 0;
      }
    }
    this.shown = { future, time: this.time };
    this.frame = requestAnimationFrame((next) => this.tick(now, next));
  }
}

function standStill(reason) {
  element("note").textContent = reason;
  document.querySelectorAll("canvas, video").forEach((moving) => moving.remove());
  element("controls").hidden = true;
  document.body.dataset.state = "still";
}

async function start() {
  const scene = JSON.parse(element("scene").textContent);
  if (scene.layers && !scene.layers.length) return standStill("Nothing in this photograph moves.");
  const still = element("still");
  await still.decode();
  const player = await (scene.layers ? LayerPlayer : VideoPlayer).open(scene, still, element("stage"));
  element("note").hidden = true;
  const face = new Face(scene, player);
  player.canvas?.addEventListener("webglcontextlost", () => {
    cancelAnimationFrame(face.frame);
    standStill("The graphics card was taken away: reload the page to see the motion.");
  });
  window.cinnema = { player, face }; // for tests and the curious
  document.body.dataset.state = "playing";
}

start().catch((error) => standStill(error.message));
