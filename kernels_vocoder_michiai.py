"""C++ of the vocoder, which `kernels_build_michiai.py` compiles after the convolutions."""

VOCODER = r"""
namespace {

constexpr float SLOPE = 0.1f;  // of the leaky rectifiers
constexpr int64_t FRAMES = 4;  // that go through at once: weights are read less often, and what lies between stays in the caches

float leaky(float x) { return x > 0 ? x : x * SLOPE; }

// memory that a thread which calls keeps from frame to frame
template <class T>
struct Buffer {
    T* data = nullptr; int64_t room = 0;
    T* of(int64_t n) {
        if (n > room) {
            std::free(data);
            room = up_to(64, n);
            data = static_cast<T*>(std::aligned_alloc(64, room * sizeof(T)));
            std::memset(data, 0, room * sizeof(T));
        }
        return data;
    }
    ~Buffer() { std::free(data); }
};

// what the threads of a call share
struct Workspace {
    Buffer<uint16_t> a, hidden, joined[2];  // a: what is convolved next
    Buffer<float> h, raised, kept, spread;  // h: what was computed last
};

struct Convolution {
    int64_t taps = 1, dilation = 1, added = 0;
    const uint16_t* tiles = nullptr; const float* bias = nullptr;
    int64_t back() const { return (taps - 1) * dilation; }
};

struct Reader {
    const int64_t* at;
    int64_t number() { return *at++; }
    const float* floats() { return reinterpret_cast<const float*>(*at++); }
    const uint16_t* tiles() { return reinterpret_cast<const uint16_t*>(*at++); }
    Convolution convolution() {
        const int64_t taps = number(), dilation = number(), added = number();
        const uint16_t* w = tiles();
        return {taps, dilation, added, w, floats()};
    }
};

void layer_norm(const float* x, int64_t n, int64_t width, const float* weight, const float* bias, float* y) {
    standardise(x, n, 1e-5f, y);
    for (int64_t i = 0; i < width; i++) y[i] = (i < n ? y[i] : 0.0f) * weight[i] + bias[i];
}

// One of the threads that bring latents through the vocoder together, each computing its share of the columns.
struct Walker {
    Reader read;  // of the plan, from here on
    float* past;  // the memory, from here on
    Workspace& space;
    const int thread, threads;

    int64_t begin(int64_t n) const { return n * thread / threads; }  // its share of n
    int64_t end(int64_t n) const { return n * (thread + 1) / threads; }

    // Transposed convolution, kernel = pieces * rate: a [T, n] -> h [(T + pieces - 1) * rate, C], whose last rows are kept. Gives T * rate.
    int64_t upsample(int64_t T, int64_t n, int64_t C) {
        const int64_t rate = read.number(), pieces = read.number(), blocks = C / TILE, all = rate * blocks;
        const uint16_t* w = read.tiles(); const float* bias = read.floats();
        #pragma omp barrier
        #pragma omp single
        space.h.of((T + pieces - 1) * rate * C);
        float *y = space.h.data, *tail = past;
        for (int64_t i = begin(all); i < end(all); i++) {
            const int64_t r = i / blocks, column = i % blocks * TILE;
            for (int64_t t = 0; t < T + pieces - 1; t++)
                for (int64_t c = column; c < column + TILE; c++)
                    y[(t * rate + r) * C + c] = (t < T ? bias[c] : 0.0f) + (t < pieces - 1 ? tail[(t * rate + r) * C + c] : 0.0f);
            for (int64_t p = 0; p < pieces; p++)
                columns(space.a.data, T, n, 1, 1, w, (p * rate + r) * blocks + i % blocks, [&](int64_t t, const float* values) {
                    float* to = y + ((t + p) * rate + r) * C + column;
                    #pragma omp simd
                    for (int c = 0; c < TILE; c++) to[c] += values[c];
                });
            for (int64_t t = 0; t < pieces - 1; t++)
                std::memcpy(tail + (t * rate + r) * C + column, y + ((T + t) * rate + r) * C + column, TILE * sizeof(float));
        }
        past += (pieces - 1) * rate * C;
        #pragma omp barrier
        return T * rate;
    }

    // ConvNeXt blocks and the last norm, whose width without what fills it up is `inner`: h [T, W] -> a [T, W], rectified
    void trunk(int64_t T, int64_t W, int64_t inner) {
        const int64_t kernel = read.number(), F = read.number(), depth = read.number(), reach = kernel - 1;
        std::vector<float> seen((reach + T) * W), row(W);
        Buffer<uint16_t> own_;
        uint16_t* own = own_.of(up_to(TILE, T) * W);
        #pragma omp single
        {
            space.a.of(up_to(TILE, T + TILE) * W);
            space.hidden.of(up_to(TILE, T) * F);
        }
        float* h = space.h.data;
        uint16_t *hidden = space.hidden.data, *a = space.a.data;
        for (int64_t layer = 0; layer < depth; layer++) {
            const float *depthwise = read.floats(), *bias = read.floats(), *norm = read.floats(), *shift = read.floats();
            std::memcpy(seen.data(), past, reach * W * sizeof(float));
            std::memcpy(seen.data() + reach * W, h, T * W * sizeof(float));
            for (int64_t t = 0; t < T; t++) {
                std::memcpy(row.data(), bias, W * sizeof(float));
                for (int64_t k = 0; k < kernel; k++)
                    for (int64_t c = 0; c < W; c++) row[c] += seen[(t + k) * W + c] * depthwise[k * W + c];
                layer_norm(row.data(), inner, W, norm, shift, row.data());
                for (int64_t c = 0; c < W; c++) own[t * W + c] = to_bf16(row[c]);
            }
            const uint16_t* up = read.tiles(); const float* up_bias = read.floats();
            for (int64_t block = begin(F / TILE); block < end(F / TILE); block++)
                columns(own, T, W, 1, 1, up, block, [&](int64_t t, const float* values) {
                    #pragma omp simd
                    for (int c = 0; c < TILE; c++) {
                        const float v = values[c] + up_bias[block * TILE + c], z = 1.59576912f * (v + 0.044715f * v * v * v);
                        hidden[t * F + block * TILE + c] = to_bf16(v * sigmoid(z));  // GELU by its tanh
                    }
                });
            #pragma omp barrier
            const uint16_t* down = read.tiles(); const float* down_bias = read.floats();
            for (int64_t block = begin(W / TILE); block < end(W / TILE); block++)
                columns(hidden, T, F, 1, 1, down, block, [&](int64_t t, const float* values) {
                    #pragma omp simd
                    for (int c = 0; c < TILE; c++) h[t * W + block * TILE + c] += values[c] + down_bias[block * TILE + c];
                });
            if (thread == 0) std::memcpy(past, seen.data() + T * W, reach * W * sizeof(float));
            past += reach * W;
            #pragma omp barrier
        }
        const float *norm = read.floats(), *shift = read.floats();
        for (int64_t t = begin(T); t < end(T); t++) {
            layer_norm(h + t * W, inner, W, norm, shift, row.data());
            for (int64_t c = 0; c < W; c++) a[t * W + c] = to_bf16(leaky(row[c]));
        }
    }

    // Of T outputs this thread's columns: emit(t, column, 32 values), of a convolution of back + T inputs
    template <class Emit>
    void convolve(const Convolution& conv, const uint16_t* in, int64_t T, int64_t C, Emit emit) {
        const Rows rows(T, conv.taps, conv.dilation);
        if (FEWER) {
            to_points(in, conv.back() + T, C, conv.dilation, rows, space.spread.data, begin(rows.inputs), end(rows.inputs));
            #pragma omp barrier
        }
        for (int64_t block = begin(C / TILE); block < end(C / TILE); block++) {
            const auto of_block = [&](int64_t t, const float* values) { emit(t, block * TILE, values); };
            if (FEWER) from_points(space.spread.data, rows, T, C, conv.taps, conv.dilation, conv.tiles, block, of_block);
            else columns(in, T, C, conv.taps, conv.dilation, conv.tiles, block, of_block);
        }
    }

    // A residual block: h [T, C] -> kept [T, C], added to what is there, unless it is the first
    void residual(int64_t T, int64_t C, bool first) {
        const int64_t count = read.number();
        Convolution now = read.convolution();
        float *x = space.raised.data, *kept = space.kept.data;
        uint16_t *in = space.joined[0].data, *out = space.joined[1].data;
        for (int64_t i = begin(T) * C; i < end(T) * C; i++) {
            x[i] = space.h.data[i];
            in[now.back() * C + i] = to_bf16(leaky(x[i]));
        }
        if (thread == 0)
            for (int64_t i = 0; i < now.back() * C; i++) in[i] = to_bf16(past[i]);
        #pragma omp barrier
        for (int64_t i = 0; i < count; i++) {
            const bool last = i + 1 == count, added = now.added;
            const Convolution next = last ? Convolution{} : read.convolution();
            const int64_t back = now.back(), ahead = next.back();
            const float* bias = now.bias;
            convolve(now, in, T, C, [=](int64_t t, int64_t column, const float* values) {
                const int64_t at = t * C + column;
                #pragma omp simd
                for (int c = 0; c < TILE; c++) {
                    float v = values[c] + bias[column + c];
                    if (added) x[at + c] = v += x[at + c];
                    if (last) kept[at + c] = first ? v : kept[at + c] + v;
                    else out[ahead * C + at + c] = to_bf16(leaky(v));
                }
            });
            // this thread's columns of the past: that of the next convolution, and this one's for the next call
            for (int64_t c = begin(C / TILE) * TILE; c < end(C / TILE) * TILE; c++) {
                for (int64_t t = 0; t < ahead; t++) out[t * C + c] = to_bf16(past[(back + t) * C + c]);
                for (int64_t t = 0; t < back; t++) past[t * C + c] = from_bf16(in[(T + t) * C + c]);
            }
            past += back * C;
            now = next;
            std::swap(in, out);
            #pragma omp barrier
        }
    }

    // Upsampling and the mean of residual blocks: a [T, n] -> `last` or, rectified, a: [T * rate, C]. Gives T * rate; n becomes C.
    int64_t stage(int64_t T, int64_t& n, float* last) {
        const int64_t C = read.number(), steps = upsample(T, n, C), blocks = read.number();
        #pragma omp single
        {
            int64_t farthest = 0, most = 0;
            Reader ahead = read;
            for (int64_t i = 0; i < blocks; i++)
                for (int64_t left = ahead.number(); left > 0; left--) {
                    const Convolution conv = ahead.convolution();
                    farthest = std::max(farthest, conv.back());
                    most = std::max(most, Rows(steps, conv.taps, conv.dilation).size(C));
                }
            space.raised.of(steps * C);
            space.kept.of(steps * C);
            if (FEWER) space.spread.of(most);
            for (auto& joined : space.joined) joined.of((farthest + up_to(TILE, steps)) * C);
            space.a.of(up_to(TILE, steps + TILE) * C);
        }
        for (int64_t i = 0; i < blocks; i++) residual(steps, C, i == 0);
        for (int64_t i = begin(steps) * C; i < end(steps) * C; i++) {
            const float v = space.kept.data[i] / blocks;
            if (last) last[i] = v;
            else space.a.data[i] = to_bf16(leaky(v));
        }
        n = C;
        return steps;
    }
};

}  // namespace

// plan:
//   latents, width, and of the input its rate, pieces, tiles, bias;
//   the trunk's kernel, hidden width and number of blocks, of each the depthwise weights [kernel, width] and bias, the norm's weight and
//   bias, tiles and bias up, tiles and bias down; the last norm's weight and bias;
//   the number of stages, of each its width, rate, pieces, tiles, bias and number of residual blocks, of each the number of
//   convolutions, of each its kernel, dilation, whether its result is added to the block's input, tiles, bias.
// Widths are whole tiles; `inner` is the trunk's without what fills it up.
// x [B, T, latents] -> y [B, T * rates, last width]; memory [B, size] is changed in place, all zeros is the empty past.
extern "C" void generate(const int64_t* plan, int64_t inner, float* memory, int64_t size, const float* x, float* y, int64_t B, int64_t T,
                         int64_t threads) {
    static thread_local Workspace kept;  // from frame to frame
    Workspace& space = kept;
    for (int64_t b = 0; b < B; b++)
        for (int64_t start = 0; start < T; start += FRAMES) {
            Reader read{plan};
            const int64_t latents = read.number(), W = read.number(), count = std::min(FRAMES, T - start);
            uint16_t* a = space.a.of(up_to(TILE, count) * latents);
            for (int64_t i = 0; i < count * latents; i++) a[i] = to_bf16(x[(b * T + start) * latents + i]);
            #pragma omp parallel num_threads(threads)
            {
#ifdef TILED
                if (TILES) begin_tiles();
#endif
                Walker walk{read, memory + b * size, space, omp_get_thread_num(), omp_get_num_threads()};
                int64_t length = walk.upsample(count, latents, W), width = W;
                walk.trunk(length, W, inner);
                for (int64_t left = walk.read.number(); left > 0; left--)
                    length = walk.stage(length, width, left > 1 ? nullptr : y);
                #pragma omp single nowait
                y += length * width;  // of the next frames; all have begun with these ones'
#ifdef TILED
                if (TILES) _tile_release();
#endif
            }
        }
}
"""
