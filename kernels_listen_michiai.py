"""C++ of the listen head's convolutions, which `kernels_build_michiai.py` compiles after the int8 products."""

LISTEN = r"""
namespace {

// x times the normal distribution up to x, whose error function is Abramowitz and Stegun's 7.1.26 (off by 1.5e-7)
inline float gelu(float x) {
    const float z = std::fabs(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    const float sum = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    return 0.5f * x * (1.0f + std::copysign(1.0f - sum * exp_of(-z * z), x));
}

// A matrix with a bias, whose inputs are some rows side by side
struct Window {
    Matrix matrix; const float* bias; int64_t inputs, outputs;

    static Window at(const int64_t* plan) {
        return {Matrix::at(plan), reinterpret_cast<const float*>(plan[3]), plan[4], plan[5]};
    }

    // emit(m, r, value) for this thread's share of the outputs; x(m) is where the inputs of row m begin
    template <class From, class Emit>
    void operator()(int64_t M, From x, Levels q, int thread, int threads, Emit emit) const {
        int64_t first, last;
        q.stride = up_to(64, inputs);
        for (int64_t m = 0; m < M; m++) quantise(x(m), inputs, m, q);
        share(outputs, thread, threads, first, last);
        multiply(q, M, matrix, first, last, inputs, [&](int64_t m, int64_t r, float value) { emit(m, r, value + bias[r]); });
    }
};

// [B, count, width], each row of the batch after two of before
struct Chunk {
    int64_t B, count, width;
    std::vector<float> values;

    Chunk(int64_t B, int64_t count, int64_t width) : B(B), count(count), width(width), values(B * (count + 2) * width) {}

    float* at(int64_t b, int64_t r) { return values.data() + (b * (count + 2) + r) * width; }

    float* load(float* memory, int64_t stride) {
        for (int64_t b = 0; b < B; b++) std::copy_n(memory + b * stride, 2 * width, at(b, 0));
        return memory + 2 * width;
    }

    float* keep(float* memory, int64_t stride) {
        for (int64_t b = 0; b < B; b++) std::copy_n(at(b, count), 2 * width, memory + b * stride);
        return memory + 2 * width;
    }
};

}  // namespace

// Halvings of the rate, each but the last with a residual convolution after it. plan: per halving the (weight, scale, sums, bias, inputs,
// outputs) of its matrix, then, but after the last, the norm's weight and bias and the same of the convolution's two matrices.
// x [B, T, C] -> y [B, T / 2^halvings, D]; memory [B, stride], of each halving and each convolution the two rows before, is renewed.
extern "C" void halve_rates(const int64_t* plan, int64_t halvings, const float* x, float* y, float* memory, int64_t stride, int64_t B,
                            int64_t T, float eps, int64_t threads) {
    constexpr int64_t PLAN = 20;
    std::vector<Chunk> given, normed;  // what halvings and convolutions take
    int64_t wide = 0;
    float* past = memory;
    for (int64_t i = 0; i < halvings; i++) {
        const Window halve = Window::at(plan + i * PLAN);
        given.emplace_back(B, T >> i, halve.inputs / 4);
        past = given.back().load(past, stride);
        wide = std::max(wide, B * (T >> (i + 1)) * up_to(64, std::max(halve.inputs, 3 * halve.outputs)));
        if (i + 1 == halvings) break;
        normed.emplace_back(B, T >> (i + 1), halve.outputs);
        past = normed.back().load(past, stride);
    }
    for (int64_t b = 0; b < B; b++) std::copy_n(x + b * T * given[0].width, T * given[0].width, given[0].at(b, 2));
    std::vector<float> inner(B * T / 2 * (normed.empty() ? 0 : normed[0].width));

    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        std::vector<Level> levels(wide);
        std::vector<float> scales(B * T / 2);
        const Levels q{levels.data(), scales.data(), 0};
        for (int64_t i = 0; i < halvings; i++) {
            const int64_t* at = plan + i * PLAN;
            const int64_t R = T >> (i + 1), M = B * R;
            const Window halve = Window::at(at);
            const bool last = i + 1 == halvings;
            auto out = [&](int64_t m) { return last ? y + m * halve.outputs : given[i + 1].at(m / R, m % R + 2); };
            halve(M, [&](int64_t m) { return given[i].at(m / R, m % R * 2); }, q, thread, n,
                  [&](int64_t m, int64_t r, float value) { out(m)[r] = value; });
            #pragma omp barrier
            if (last) break;
            const auto weight = reinterpret_cast<const float*>(at[6]), bias = reinterpret_cast<const float*>(at[7]);
            const Window into = Window::at(at + 8), from = Window::at(at + 14);
            const int64_t width = halve.outputs;
            #pragma omp for
            for (int64_t m = 0; m < M; m++) {
                float* to = normed[i].at(m / R, m % R + 2);
                standardise(out(m), width, eps, to);
                for (int64_t j = 0; j < width; j++) to[j] = to[j] * weight[j] + bias[j];
            }
            into(M, [&](int64_t m) { return normed[i].at(m / R, m % R); }, q, thread, n,
                 [&](int64_t m, int64_t r, float value) { inner[m * width + r] = value; });
            #pragma omp barrier
            #pragma omp for
            for (int64_t j = 0; j < M * width; j++) inner[j] = gelu(inner[j]);
            from(M, [&](int64_t m) { return inner.data() + m * width; }, q, thread, n,
                 [&](int64_t m, int64_t r, float value) { out(m)[r] += value; });
            #pragma omp barrier
        }
    }
    past = memory;
    for (int64_t i = 0; i < halvings; i++) {
        past = given[i].keep(past, stride);
        if (i + 1 < halvings) past = normed[i].keep(past, stride);
    }
}
"""
