// Vectors, small matrix products, radial functions, harmonics and threads of the kernels.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;
#endif

template <class T> struct Vec { typedef T type __attribute__((vector_size(BYTES), aligned(BYTES), may_alias)); static constexpr int n = BYTES / sizeof(T); };
template <class T> using V = typename Vec<T>::type;
template <class T> constexpr int W = Vec<T>::n;
template <class T> inline V<T> splat(T x) { V<T> v; for (int i = 0; i < W<T>; i++) v[i] = x; return v; }
template <class T> inline V<T> load(const T *p) { return *reinterpret_cast<const V<T> *>(p); }
template <class T> inline void store(T *p, V<T> v) { *reinterpret_cast<V<T> *>(p) = v; }
inline int64_t padded(int64_t n, int64_t w) { return (n + w - 1) / w * w; }

// exp of a vector: 2^n e^r with |r| <= ln 2 / 2, and a polynomial for e^r.
inline V<float> vexp(V<float> x) {
    typedef int32_t I __attribute__((vector_size(BYTES)));
    x = x < -87.0f ? splat<float>(-87.0f) : x; x = x > 88.0f ? splat<float>(88.0f) : x;
    V<float> t = x * 1.44269504088896341f;
    I k = __builtin_convertvector(t + (t < 0.0f ? splat<float>(-0.5f) : splat<float>(0.5f)), I);
    V<float> n = __builtin_convertvector(k, V<float>);
    V<float> r = x - n * 0.693359375f - n * -2.12194440e-4f;
    V<float> p = splat<float>(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.0f;
    I e = (k + 127) << 23;
    V<float> s; std::memcpy(&s, &e, sizeof s); return p * s;
}
inline V<double> vexp(V<double> x) {
    typedef int64_t I __attribute__((vector_size(BYTES)));
    x = x < -700.0 ? splat<double>(-700.0) : x; x = x > 700.0 ? splat<double>(700.0) : x;
    V<double> t = x * 1.4426950408889634074;
    I k = __builtin_convertvector(t + (t < 0.0 ? splat<double>(-0.5) : splat<double>(0.5)), I);
    V<double> n = __builtin_convertvector(k, V<double>);
    V<double> r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    V<double> p = splat<double>(1.0 / 6227020800.0);
    const double c[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
    for (double k : c) p = p * r + k;
    I e = (k + 1023) << 52;
    V<double> s; std::memcpy(&s, &e, sizeof s); return p * s;
}
template <class T> inline V<T> vsigmoid(V<T> x) { return splat<T>(1) / (vexp(-x) + T(1)); }
template <class T> inline V<T> vtanh(V<T> x) { return splat<T>(1) - T(2) / (vexp(x + x) + T(1)); }

// Y[rows, n] = X[rows, m] B[m, n] (+ bias) (+ Y); leading dimensions ldx, n of B and Y padded to vectors.
template <class T, int R, int C> inline void block(const T *x, int64_t ldx, const T *b, int64_t ldb, const T *bias, T *y, int64_t ldy, int64_t m, bool add) {
    V<T> acc[R][C];
    for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) {
        V<T> start = bias ? load(bias + c * W<T>) : splat<T>(0);
        acc[r][c] = add ? start + load(y + r * ldy + c * W<T>) : start;
    }
    for (int64_t k = 0; k < m; k++) {
        V<T> w[C];
        for (int c = 0; c < C; c++) w[c] = load(b + k * ldb + c * W<T>);
        for (int r = 0; r < R; r++) {
            const T xk = x[r * ldx + k];
            for (int c = 0; c < C; c++) acc[r][c] += w[c] * xk;
        }
    }
    for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) store(y + r * ldy + c * W<T>, acc[r][c]);
}
template <class T, int C> void columns(const T *x, int64_t ldx, const T *b, int64_t ldb, const T *bias, T *y, int64_t ldy, int64_t rows, int64_t m, bool add) {
    constexpr int R = BYTES == 64 ? 24 / C > 8 ? 8 : 24 / C : 12 / C > 4 ? 4 : 12 / C;
    int64_t i = 0;
    for (; i + R <= rows; i += R) block<T, R, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
    for (; i + 2 <= rows; i += 2) block<T, 2, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
    for (; i < rows; i++) block<T, 1, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
}
template <class T> void gemm(const T *x, int64_t ldx, const T *b, int64_t n, const T *bias, T *y, int64_t ldy, int64_t rows, int64_t m, bool add = false) {
    const int64_t w = W<T>;
    int64_t j = 0;
    auto bs = [&](int64_t k) { return bias ? bias + k : nullptr; };
    for (; j + 4 * w <= n; j += 4 * w) columns<T, 4>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
    for (; j + 2 * w <= n; j += 2 * w) columns<T, 2>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
    for (; j + w <= n; j += w) columns<T, 1>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
}

template <class T> struct Buffer {  // n zeros, aligned to vectors; std::bad_alloc without memory
    T *p;
    explicit Buffer(int64_t n) : p(static_cast<T *>(::operator new(std::max<int64_t>(n, 1) * sizeof(T), std::align_val_t{64}))) { std::memset(p, 0, n * sizeof(T)); }
    Buffer(Buffer &&other) noexcept : p(other.p) { other.p = nullptr; }
    ~Buffer() { ::operator delete(p, std::align_val_t{64}); }
    operator T *() const { return p; }
};

// A matrix with its rows padded to whole vectors, and its transpose.
template <class T> struct Matrix {
    int64_t p_in, p_out; Buffer<T> a, t;
    Matrix(const T *w, int64_t n_in, int64_t n_out) : p_in(padded(n_in, W<T>)), p_out(padded(n_out, W<T>)), a(n_in * p_out), t(n_out * p_in) {
        for (int64_t i = 0; i < n_in; i++) for (int64_t j = 0; j < n_out; j++) { a[i * p_out + j] = w[i * n_out + j]; t[j * p_in + i] = w[i * n_out + j]; }
    }
};
template <class T> struct Rows {  // vectors padded to whole ones
    int64_t p; Buffer<T> a;
    Rows(const T *w, int64_t rows, int64_t n) : p(padded(n, W<T>)), a(rows * p) {
        if (w) for (int64_t i = 0; i < rows; i++) std::memcpy(a + i * p, w + i * n, sizeof(T) * n);
    }
};

template <class T> inline T dot(const T *x, const T *y, int64_t n) {  // of whole vectors
    V<T> acc = splat<T>(0); for (int64_t j = 0; j < n; j += W<T>) acc += load(x + j) * load(y + j);
    T sum = 0; for (int j = 0; j < W<T>; j++) sum += acc[j];
    return sum;
}

// Sine and cosine on [0, pi], and a little beyond: Taylor series around the middle.
inline void vsincos(V<double> theta, V<double> &sine, V<double> &cosine) {
    const V<double> t = theta - 1.57079632679489661923, u = t * t;
    const double e[] = {1.0 / 2432902008176640000, -1.0 / 6402373705728000, 1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1.0};
    const double o[] = {1.0 / 51090942171709440000.0, -1.0 / 121645100408832000, 1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0};
    V<double> even = splat<double>(-1.0 / 1124000727777607680000.0), odd = splat<double>(0);
    for (double f : e) even = even * u + f;
    for (double f : o) odd = odd * u + f;
    sine = even; cosine = -odd * t;
}

// Radial functions of nn/radial.py at K distances, b[k, n] with rows of p numbers, and the envelope; and their derivatives.
// All in double precision: the recurrence of the sines multiplies rounding errors by the square of their number.
template <class T> void radial_functions(int64_t K, const T *r, double rc, int64_t n_radial, int64_t p, T *b, T *db, T *inside, T *slope) {
    const double norm = std::sqrt(2.0 / rc), step = 3.14159265358979323846 / rc;
    constexpr int64_t lanes = W<double>;
    for (int64_t k = 0; k < K; k += lanes) {
        const int64_t n_here = std::min<int64_t>(lanes, K - k);
        V<double> d = splat<double>(1);
        for (int64_t i = 0; i < n_here; i++) d[i] = r[k + i];
        const V<double> inverse = 1.0 / d;
        V<double> sn, cs; vsincos(d * step, sn, cs);
        V<double> s0 = splat<double>(0), s1 = sn, c0 = splat<double>(1), c1 = cs;
        for (int64_t n = 0; n < n_radial; n++) {
            const V<double> f = norm * s1 * inverse, df = (c1 * (norm * step * double(n + 1)) - f) * inverse;
            for (int64_t i = 0; i < n_here; i++) { b[(k + i) * p + n] = T(f[i]); db[(k + i) * p + n] = T(df[i]); }
            const V<double> s2 = 2.0 * cs * s1 - s0, c2 = 2.0 * cs * c1 - c0; s0 = s1; s1 = s2; c0 = c1; c1 = c2;
        }
        V<double> x = d * (1 / rc); x = x < 1.0 ? x : splat<double>(1);
        const V<double> f = x * x * x * (x * (15.0 - 6.0 * x) - 10.0) + 1.0, df = x * x * (x * (60.0 - 30.0 * x) - 30.0) * (1 / rc);
        for (int64_t i = 0; i < n_here; i++) { inside[k + i] = T(f[i]); slope[k + i] = T(df[i]); }
    }
}

constexpr int DEGREES = 10;  // harmonics have lower ones

// Factors of the recurrence of the harmonics in their degree, for each order.
struct Recurrence {
    double first[DEGREES], a[DEGREES][DEGREES], b[DEGREES][DEGREES];
    Recurrence() {
        double factorial = 1, odd = 1;
        for (int m = 0; m < DEGREES; m++) {
            if (m) { factorial *= (2.0 * m - 1) * (2.0 * m); odd *= 2.0 * m - 1; }
            first[m] = odd * std::sqrt((m ? 2.0 : 1.0) / factorial);
            for (int l = m + 1; l < DEGREES; l++) {
                const double norm = std::sqrt(double(l * l - m * m));
                a[m][l] = (2 * l - 1) / norm;
                b[m][l] = l > m + 1 ? std::sqrt(double((l - 1) * (l - 1) - m * m)) / norm : 0.0;
            }
        }
    }
};

// Harmonics of K directions [ny, ld] and their derivatives in x, y, z; ld is a multiple of a vector's length.
template <class T> void harmonics(int64_t l_max, int64_t K, int64_t ld, const T *x, const T *y, const T *z, T *Y, T *Dx, T *Dy, T *Dz) {
    static const Recurrence factors;
    for (int64_t k = 0; k < K; k += W<T>) {
        const V<T> X = load(x + k), U = load(y + k), Z = load(z + k);
        V<T> re[DEGREES], im[DEGREES]; re[0] = splat<T>(1); im[0] = splat<T>(0);
        for (int m = 1; m <= l_max; m++) { re[m] = X * re[m - 1] - U * im[m - 1]; im[m] = X * im[m - 1] + U * re[m - 1]; }
        for (int m = 0; m <= l_max; m++) {
            V<T> q = splat<T>(T(factors.first[m])), dq = splat<T>(0), p = splat<T>(0), dp = splat<T>(0);
            for (int l = m; l <= l_max; l++) {
                if (l > m) {
                    const T a = T(factors.a[m][l]), b = T(factors.b[m][l]);
                    const V<T> v = a * Z * q - b * p, dv = a * (q + Z * dq) - b * dp;
                    p = q; dp = dq; q = v; dq = dv;
                }
                const int64_t base = l * l + l;
                auto put = [&](int64_t i, V<T> f, V<T> fx, V<T> fy) {
                    store(Y + i * ld + k, q * f);
                    if (Dx) { store(Dx + i * ld + k, q * fx); store(Dy + i * ld + k, q * fy); store(Dz + i * ld + k, dq * f); }
                };
                if (!m) { put(l == 1 ? 3 : base, splat<T>(1), splat<T>(0), splat<T>(0)); continue; }
                const int64_t above = l == 1 ? 1 : base + m, below = l == 1 ? 2 : base - m;
                put(above, re[m], T(m) * re[m - 1], T(-m) * im[m - 1]);
                put(below, im[m], T(m) * im[m - 1], T(m) * re[m - 1]);
            }
        }
    }
}

// Whether there was memory enough. No exception leaves it, which would end the process.
template <class Call> bool run(const Call &call, int64_t n_atoms, int64_t n_threads) noexcept {
    constexpr int64_t ATOMS_PER_THREAD = 32;  // at least, for a thread to pay
    n_threads = std::max<int64_t>(1, std::min(n_threads, n_atoms / ATOMS_PER_THREAD));
    std::atomic<bool> good{true};
    auto part = [&](int64_t t) noexcept {
        try { call(t * n_atoms / n_threads, (t + 1) * n_atoms / n_threads); } catch (const std::bad_alloc &) { good = false; }
    };
    std::vector<std::thread> others;
    int64_t started = 1;
    try {
        others.reserve(n_threads);
        for (; started < n_threads; started++) others.emplace_back(part, started);
    } catch (const std::exception &) {}  // no more threads are to be had: this one does the other parts
    part(0);
    for (int64_t t = started; t < n_threads; t++) part(t);
    for (auto &other : others) other.join();
    return good;
}
