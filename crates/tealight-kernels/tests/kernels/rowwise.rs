//! Activation functions, softmax, normalization and products of rows.

use super::{FLOAT_ERROR, assert_equal_on_all_isas, available_isas, bits, values};
use tealight_kernels::Isa;
use tealight_kernels::rowwise::{self, EXP_ERROR, GELU_ERROR};

fn in_place(x: &[f32], f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut x = x.to_vec();
    f(&mut x);
    x
}

#[test]
fn gelu_is_close_to_float64() {
    let inputs: Vec<f32> = (-80_000..80_003).map(|i| i as f32 / 10_000.0).collect();
    let found = assert_equal_on_all_isas("gelu", |isa| in_place(&inputs, |x| rowwise::gelu_erf(isa, x)));
    for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
        let exact = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let error = (found as f64 - exact).abs() / x.abs().max(1.0);
        assert!(error <= GELU_ERROR, "{x}: {found} {exact}");
    }
    for isa in available_isas() {
        let ends = in_place(&[f32::NAN, 1e30, -1e30, f32::INFINITY, 0.0, -0.0], |x| rowwise::gelu_erf(isa, x));
        assert!(ends[0].is_nan() && ends[1] == 1e30 && ends[3] == f32::INFINITY, "{ends:?}");
        assert!(ends[2] == 0.0 && ends[4] == 0.0 && ends[5] == 0.0, "{ends:?}");
    }
}

#[test]
fn silu_is_close_to_float64() {
    let inputs: Vec<f32> = (-40_000..40_003).map(|i| i as f32 / 400.0).collect();
    let found = assert_equal_on_all_isas("silu", |isa| in_place(&inputs, |x| rowwise::silu(isa, x)));
    for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
        let exact = x / (1.0 + (-x).exp());
        // The exponent is rounded to 24 bits, and inputs below -88 are computed as -88, with a result of -5e-37.
        let bound = (EXP_ERROR + x.abs() * 2e-7) * exact.abs() + 2e-36;
        assert!((found as f64 - exact).abs() <= bound, "{x}: {found} {exact}");
    }
    let ends = in_place(&[f32::NAN, 1e30, -1e30, f32::INFINITY], |x| rowwise::silu(Isa::detect(), x));
    assert!(ends[0].is_nan() && ends[1] == 1e30 && ends[2].abs() < 1e-6 && ends[3] == f32::INFINITY, "{ends:?}");
}

#[test]
fn gelu_tanh_is_close_to_float64() {
    let inputs: Vec<f32> = (-40_000..40_003).map(|i| i as f32 / 400.0).collect();
    let found = assert_equal_on_all_isas("gelu_tanh", |isa| in_place(&inputs, |x| rowwise::gelu_tanh(isa, x)));
    for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        let exact = 0.5 * x * (1.0 + inner.tanh());
        let error = (found as f64 - exact).abs() / x.abs().max(1.0);
        assert!(error <= GELU_ERROR, "{x}: {found} {exact}");
    }
    let ends = in_place(&[f32::NAN, 3e38, -3e38, f32::INFINITY, 0.0], |x| rowwise::gelu_tanh(Isa::detect(), x));
    assert!(ends[0].is_nan() && ends[1] == 3e38 && ends[2].abs() < 1e-20 && ends[3] == f32::INFINITY, "{ends:?}");
    assert_eq!(ends[4], 0.0);
}

#[test]
fn softmax_is_close_to_float64() {
    for n in [1, 2, 15, 16, 17, 31, 33, 100] {
        let x: Vec<f32> = values(n, 40).iter().map(|v| v * 20.0).collect();
        let found = assert_equal_on_all_isas("softmax", |isa| in_place(&x, |x| rowwise::softmax(isa, x)));
        let largest = x.iter().fold(f64::MIN, |m, v| m.max(*v as f64));
        let total: f64 = x.iter().map(|v| (*v as f64 - largest).exp()).sum();
        for (x, found) in x.iter().zip(found) {
            let exact = (*x as f64 - largest).exp() / total;
            assert!((found as f64 - exact).abs() <= 1e-5 * exact + 1e-30, "{n}: {found} {exact}");
        }
    }
    let row = in_place(&[0.0, f32::NAN], |x| rowwise::softmax(Isa::detect(), x));
    assert!(row.iter().all(|v| v.is_nan()));
}

#[test]
fn layer_norm_is_close_to_float64() {
    for d in [1, 7, 8, 16, 31, 32, 48, 384] {
        for count in [1, 3, 4, 5] {
            let rows = values(count * d, 5);
            let (weight, bias) = (values(d, 6), values(d, 7));
            let found = assert_equal_on_all_isas("layer_norm", |isa| {
                in_place(&rows, |x| rowwise::layer_norm(isa, x, d, &weight, &bias, 1e-12))
            });
            for (row, found) in rows.chunks(d).zip(found.chunks(d)).filter(|_| d > 1) {
                let mean = row.iter().map(|v| *v as f64).sum::<f64>() / d as f64;
                let variance = row.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / d as f64;
                for ((v, f), (w, b)) in row.iter().zip(found).zip(weight.iter().zip(&bias)) {
                    let exact = (*v as f64 - mean) / variance.sqrt() * *w as f64 + *b as f64;
                    assert!((*f as f64 - exact).abs() < 4.0 * FLOAT_ERROR, "{d}: {f} {exact}");
                }
            }
        }
    }
}

/// An operation on rows that begin at multiples of a number.
type StridedOperation<'a> = &'a dyn Fn(&mut [f32], usize);

/// Values between a row and the next are padding, which stays as it is.
#[test]
fn norms_of_rows_with_padding_equal_those_without() {
    for (d, stride) in [(7, 16), (40, 48), (32, 33)] {
        let (rows, weight, bias) = (values(5 * d, 5), values(d, 6), values(d, 7));
        let padded: Vec<f32> = rows.chunks(d).flat_map(|row| [row, &vec![9.0; stride - d]].concat()).collect();
        for isa in available_isas() {
            let norms: [StridedOperation; 2] =
                [&|x, stride| rowwise::layer_norm(isa, x, stride, &weight, &bias, 1e-12), &|x, stride| {
                    rowwise::rms_norm(isa, x, stride, &weight, 1e-6)
                }];
            for norm in norms {
                let (found, expected) = (in_place(&padded, |x| norm(x, stride)), in_place(&rows, |x| norm(x, d)));
                for (found, expected) in found.chunks(stride).zip(expected.chunks(d)) {
                    assert_eq!(bits(&found[..d]), bits(expected));
                    assert!(found[d..].iter().all(|v| *v == 9.0));
                }
            }
        }
    }
}

#[test]
fn rms_norm_is_close_to_float64() {
    for d in [1, 7, 16, 33, 576] {
        let (rows, weight) = (values(3 * d, 8), values(d, 9));
        let found = assert_equal_on_all_isas("rms_norm", |isa| {
            in_place(&rows, |x| rowwise::rms_norm(isa, x, d, &weight, 1e-6))
        });
        for (row, found) in rows.chunks(d).zip(found.chunks(d)) {
            let square = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / d as f64;
            for ((v, f), w) in row.iter().zip(found).zip(&weight) {
                let exact = *v as f64 / (square + 1e-6).sqrt() * *w as f64;
                assert!((*f as f64 - exact).abs() < FLOAT_ERROR, "{d}: {f} {exact}");
            }
        }
    }
}

type Operation<'a> = &'a dyn Fn(Isa, &mut [f32]);

/// Zeros, subnormal numbers, outliers, infinities and NaN.
#[test]
fn operations_on_special_values_are_equal_on_all_isas() {
    let special = [0.0, -0.0, 1e-45, -1e-40, 3.4e38, -3.4e38, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let (weight, bias) = (values(33, 60), values(33, 61));
    for (i, value) in special.into_iter().enumerate() {
        let mut x = values(33, 62 + i as u64);
        (x[i], x[16 + i]) = (value, value);
        for row in [x, vec![value; 33]] {
            let operations: [(&str, Operation); 6] = [
                ("layer_norm", &|isa, x| rowwise::layer_norm(isa, x, 33, &weight, &bias, 1e-12)),
                ("rms_norm", &|isa, x| rowwise::rms_norm(isa, x, 33, &weight, 1e-6)),
                ("softmax", &|isa, x| rowwise::softmax(isa, x)),
                ("gelu", &|isa, x| rowwise::gelu_erf(isa, x)),
                ("gelu_tanh", &|isa, x| rowwise::gelu_tanh(isa, x)),
                ("silu", &|isa, x| rowwise::silu(isa, x)),
            ];
            for (name, operation) in operations {
                // The payload of NaN does not matter.
                let run = |isa| {
                    in_place(&row, |x| operation(isa, x))
                        .iter()
                        .map(|v| if v.is_nan() { f32::NAN } else { *v })
                        .collect::<Vec<_>>()
                };
                let expected = run(Isa::Scalar);
                available_isas().into_iter().for_each(|isa| {
                    assert_eq!(bits(&run(isa)), bits(&expected), "{name} of {value}, {}", isa.as_str())
                });
            }
        }
    }
    let ends = in_place(&[f32::NEG_INFINITY, -3.4e38], |x| rowwise::silu(Isa::detect(), x));
    assert!(ends.iter().all(|v| v.abs() < 2e-36), "{ends:?}");
}

#[test]
fn dot_product_of_any_length_is_close_to_float64() {
    for n in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 384] {
        let (x, y) = (values(n, 12), values(n, 13));
        let exact: f64 = x.iter().zip(&y).map(|(x, y)| *x as f64 * *y as f64).sum();
        let found = assert_equal_on_all_isas("dot", |isa| vec![rowwise::dot(isa, &x, &y)]);
        assert!((found[0] as f64 - exact).abs() < 10.0 * FLOAT_ERROR, "{n}");
    }
}

#[test]
fn normalized_vector_has_unit_norm() {
    for n in [1, 3, 8, 384] {
        let mut vector = values(n, 11);
        rowwise::normalize(&mut vector);
        assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-6);
    }
    let mut zero = [0.0; 4];
    rowwise::normalize(&mut zero);
    assert_eq!(zero, [0.0; 4]);
}
