// The density of messages of nn/message_density.py with its products, and the derivatives in geometry and messages, atom by atom.
#include "products.h"

namespace {

template <class T> struct Call {
    int64_t n_radial, l_max, n_message, n_slots;
    double cutoff;
    const Matrix<T> &value;
    const Products<T> &products;
    const T *r, *unit, *messages;
    const unsigned char *mask;
    T *out;
    const T *out_bar;
    T *r_bar, *unit_bar, *messages_bar;

    void operator()(int64_t first, int64_t last) const {
        const int64_t ny = (l_max + 1) * (l_max + 1), py = padded(ny, W<T>), M = padded(n_message, W<T>), P = padded(n_radial, W<T>), n = n_slots, ld = padded(n, W<T>);
        Buffer<T> b(n * P), db(n * P), b_bar(n * P), d(ld), inside(ld), slope(ld), radial(n * M), x(n * M), x_bar(n * M), density(ny * M), density_bar(ny * M);
        Buffer<T> ux(ld), uy(ld), uz(ld), Y(py * ld), Yt(n * py), Dx(py * ld), Dy(py * ld), Dz(py * ld);
        typename Products<T>::Scratch scratch(products);
        std::vector<int64_t> slot(n);
        for (int64_t i = first; i < last; i++) {
            const int64_t edge = i * n; int64_t K = 0;
            for (int64_t j = 0; j < n; j++) if (mask[edge + j]) { const T *u = unit + 3 * (edge + j); slot[K] = j; d[K] = r[edge + j]; ux[K] = u[0]; uy[K] = u[1]; uz[K] = u[2]; K++; }
            radial_functions<T>(K, d, cutoff, n_radial, P, b, db, inside, slope);
            harmonics<T>(l_max, K, ld, ux, uy, uz, Y, r_bar ? Dx.p : nullptr, Dy, Dz);
            gemm<T>(b, P, value.a, M, nullptr, radial, M, K, n_radial);
            for (int64_t k = 0; k < K; k++) { const T *m = messages + (edge + slot[k]) * n_message; for (int64_t j = 0; j < n_message; j++) x[k * M + j] = radial[k * M + j] * inside[k] * m[j]; }
            gemm<T>(Y, ld, x, M, nullptr, density, M, ny, K);
            if (out) products.forward(density, M, scratch, out + i * products.size());
            if (!r_bar) continue;
            products.prepare(density, M, scratch);
            products.backward(out_bar + i * products.size(), scratch, density_bar, M);
            for (int64_t k = 0; k < K; k++) for (int64_t c = 0; c < ny; c++) Yt[k * py + c] = Y[c * ld + k];
            gemm<T>(Yt, py, density_bar, M, nullptr, x_bar, M, K, ny);
            std::memset(r_bar + edge, 0, sizeof(T) * n);
            std::memset(unit_bar + 3 * edge, 0, sizeof(T) * 3 * n);
            std::memset(messages_bar + edge * n_message, 0, sizeof(T) * n * n_message);
            for (int64_t k = 0; k < K; k++) {
                const T *m = messages + (edge + slot[k]) * n_message; T *m_bar = messages_bar + (edge + slot[k]) * n_message, of_inside = 0;
                for (int64_t j = 0; j < n_message; j++) {
                    const T d = x_bar[k * M + j], v = radial[k * M + j];
                    m_bar[j] = d * v * inside[k]; of_inside += d * v * m[j]; x_bar[k * M + j] = d * inside[k] * m[j];
                }
                T gx = 0, gy = 0, gz = 0;
                for (int64_t c = 0; c < ny; c++) {
                    const T d = dot<T>(density_bar + c * M, x + k * M, M);
                    gx += d * Dx[c * ld + k]; gy += d * Dy[c * ld + k]; gz += d * Dz[c * ld + k];
                }
                T *u = unit_bar + 3 * (edge + slot[k]); u[0] = gx; u[1] = gy; u[2] = gz;
                r_bar[edge + slot[k]] = of_inside * slope[k];
            }
            gemm<T>(x_bar, M, value.t, P, nullptr, b_bar, P, K, n_message);
            for (int64_t k = 0; k < K; k++) for (int64_t j = 0; j < n_radial; j++) r_bar[edge + slot[k]] += b_bar[k * P + j] * db[k * P + j];
        }
    }
};

template <class T> bool density(int64_t n_radial, double cutoff, const T *value, const ProductSizes *sizes, const ProductWeights<T> *weights, int64_t n_threads, int64_t n_atoms, int64_t n_slots,
                                const T *r, const T *unit, const T *messages, const unsigned char *mask, T *out, const T *out_bar, T *r_bar, T *unit_bar, T *messages_bar) {
    const Matrix<T> matrix(value, n_radial, sizes->n_channels);
    const Products<T> products(*sizes, *weights);
    return run(Call<T>{n_radial, sizes->l_max, sizes->n_channels, n_slots, cutoff, matrix, products, r, unit, messages, mask, out, out_bar, r_bar, unit_bar, messages_bar}, n_atoms, n_threads);
}

}  // namespace

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" int message_density_##NAME(int64_t n_radial, double cutoff, const T *value, const ProductSizes *sizes, const ProductWeights<T> *weights, int64_t n_threads, \
                                          int64_t n_atoms, int64_t n_slots, const T *r, const T *unit, const T *messages, const unsigned char *mask, T *out, \
                                          const T *out_bar, T *r_bar, T *unit_bar, T *messages_bar) noexcept {             \
        try { return density<T>(n_radial, cutoff, value, sizes, weights, n_threads, n_atoms, n_slots, r, unit, messages, mask, out, out_bar, r_bar, unit_bar, messages_bar); } \
        catch (const std::bad_alloc &) { return 0; }                                                                       \
    }
EXPORT(float, f32)
EXPORT(double, f64)
