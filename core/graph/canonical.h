// Quanvas - one form for what files write in many: so that a layer and its sites look the same wherever it came from.
//
// canonical() is done once, after import. Beyond ONNX a Graph has then:
// - MatMul with a third input: a bias [columns] that is added to the product. Made of MatMul and Add where the weight
//   stands on the right and nothing else reads the product.
// - LSTM, GRU, RNN with more outputs than ONNX gives them, after Y, Y_h (and Y_c): per direction the hidden state that
//   the recurrent weights see, then per direction what recurrent_sites() lists, each [rows, hidden size] with one row
//   for every step of every sequence. Their weights W and R are Concats of one initializer [1, hidden size, columns] for
//   every gate.
// - Attention with more outputs than its four: the scores before mask and softmax, 0 where the mask shuts them out, and the
//   probabilities after it, both [batch, heads, queries, keys].
// - LayerNormalization, RMSNormalization and Gelu of float32 below the opset that brought them, where files spell them out.
// What lies inside an operator is computed only when somebody looks at it (a tap or a quantizer). Files get ONNX's own
// forms again (plugins/exporters/onnx_opset.h).
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/graph/weights.h"

namespace quanvas {

// Names of nodes that must stay what they are, because a recipe of the model's file speaks of them.
struct Kept {
  std::set<std::string> nodes;    // not joined with others
  std::set<std::string> outputs;  // something is done to what they give before anyone reads it
};

// The model in that form; nodes that are already in it stay as they are. Fails only when the graph cannot be built.
Result<Model> canonical(Model model, const Kept& kept = {});

bool is_recurrent(const Node& node);  // LSTM, GRU or RNN of ai.onnx
// How many outputs ONNX gives the node, of those operators that canonical() gives more; else all that it has.
std::size_t own_outputs(const Node& node);

// What sites of a recurrent node are called, in their order.
struct RecurrentSites {
  std::vector<std::string> weights;    // per direction: of the gates of W; then per direction: of R
  std::vector<std::string> hidden;     // one per direction
  std::vector<std::string> internals;  // direction by direction, see cell_sites()
};
RecurrentSites recurrent_sites(const Node& node);
int directions(const Node& node);
// Gates in the order of the weights' rows, and what is quantized inside one cell: sums before the activations
// ("accumulators"), what the activations give, and of an LSTM the cell state and its activation.
const std::vector<std::string>& gates(const std::string& op);
const std::vector<std::string>& cell_sites(const std::string& op);
const std::vector<std::string>& attention_internals();  // "scores", "probabilities"

}  // namespace quanvas
