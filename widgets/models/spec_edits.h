// Quanvas - one field of a QuantSpec after another: what an edit of the inspector's form means for the others.
// Pure.
#pragma once

#include <optional>
#include <string>

#include <QString>

#include "core/recipe/quant_spec.h"

namespace quanvas {

// What the form of a site says by default: the quantizer of a float site that is to be quantized.
QuantSpec default_spec(SiteKind kind);

// `from` with one field of its JSON replaced; null empties a field that may be empty. What only the value before
// could have (the narrow range of an integer) goes where the result would not be legal with it; the result may
// still not be.
Result<QuantSpec> edited_spec(const QuantSpec& from, SiteKind kind, const std::string& key, const json& value);

// What must hold beyond the spec itself: the axes of the tensor, and that a quantizer is shared.
struct SpecSurroundings {
  SiteKind kind = SiteKind::kWeight;
  std::optional<Shape> shape;  // none: not known
  bool shared = false;
};
// Why the spec is not legal there, a sentence that begins with its field; empty: it is.
QString why_not(const QuantSpec& spec, const SpecSurroundings& where);
// Why a field that may be empty, and is, cannot be given beside the others; empty: it can.
QString why_closed(const QuantSpec& spec, const SpecSurroundings& where, const std::string& key);

// "Minifloat", "on", "automatic".
QString value_text(const Field& field, const json& value);

}  // namespace quanvas
