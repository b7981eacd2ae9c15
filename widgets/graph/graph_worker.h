// Quanvas - the way of a layout from the worker thread back to its view, which may be gone by then.
#pragma once

#include <mutex>

#include "widgets/graph/graph_view.h"

namespace quanvas {

struct GraphView::Mailbox {
  std::mutex mutex;
  GraphView* view = nullptr;  // null once the view is gone
};

}  // namespace quanvas
