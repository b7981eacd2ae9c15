// data: which samples calibrate, train and evaluate.
#include <algorithm>
#include <filesystem>
#include <string_view>

#include "app/cli/verbs.h"
#include "core/base/files.h"
#include "core/recipe/yaml.h"

namespace quanvas::cli {
namespace fs = std::filesystem;
namespace {

// Options of the readers that always name a file or a folder, also one that is not there.
constexpr std::string_view kFileOptions[] = {"images", "labels", "folder", "data", "tokenizer"};

// A project's relative paths start at its folder; what is given here is relative to `base`.
void make_absolute(json& options, const fs::path& base) {
  for (auto& [key, value] : options.items()) {
    if (!value.is_string()) continue;
    const fs::path path = value.get<std::string>();
    std::error_code ec;
    const bool names_file = std::find(std::begin(kFileOptions), std::end(kFileOptions), key) != std::end(kFileOptions);
    if (!path.empty() && path.is_relative() && (names_file || fs::exists(base / path, ec)))
      value = fs::weakly_canonical(base / path, ec).string();
  }
}

Result<DataSource> source_of(const Options& o) {
  QUANVAS_TRY(const DatasetReader* reader, Registry<DatasetReader>::instance().get(o.reader, "data set reader"));
  const Schema schema = reader->schema();
  std::vector<std::string> given = o.options;
  const std::pair<const char*, const std::string*> named[] = {
      {"images", &o.images}, {"labels", &o.labels}, {"folder", &o.folder}, {"data", &o.data}, {"tokenizer", &o.tokenizer}};
  for (const auto& [key, text] : named)
    if (!text->empty()) given.push_back(std::string(key) + "=" + *text);
  DataSource source;
  source.reader = o.reader;
  QUANVAS_TRY(source.options, options_from(given, schema, "The reader '" + o.reader + "'"));
  QUANVAS_CHECK(schema.complete(source.options, "The reader '" + o.reader + "'"));
  make_absolute(source.options, fs::current_path());
  source.begin = o.begin.value_or(0);
  source.end = o.end.value_or(-1);
  return source;
}

void apply_preprocessing(const Options& o, Preprocessing& p) {
  if (o.scale) p.scale = *o.scale;
  if (!o.mean.empty()) p.mean = o.mean;
  if (!o.std.empty()) p.std = o.std;
  if (o.resize) p.resize = *o.resize;
  if (o.crop.size() == 2) {
    p.crop_height = o.crop[0];
    p.crop_width = o.crop[1];
  }
  if (o.channels) p.channels = *o.channels;
  if (o.layout) p.layout = *o.layout;
}

void print_source(Table& table, const char* split, const DataSource& source, double samples) {
  const std::string range =
      source.begin == 0 && source.end < 0
          ? "all"
          : std::to_string(source.begin) + " .. " + (source.end < 0 ? "end" : std::to_string(source.end));
  table.row({split, source.reader.empty() ? "not declared" : source.reader, source.reader.empty() ? "" : range,
             thousands(samples), source.reader.empty() ? "" : source.options.dump()});
}

void print_data(const ProjectState& state) {
  const auto& s = state.data_status;
  Table table({{"split"}, {"reader"}, {"range"}, {"samples", Table::Align::kRight}, {"options"}});
  print_source(table, "calibrate", state.data.calibrate, s.calibration_samples);
  print_source(table, "train", state.data.train, s.training_samples);
  print_source(table, "evaluate", state.data.evaluate, s.evaluation_samples);
  print((state.data.name.empty() ? "" : state.data.name + "\n") + table.text());
  print("preprocessing " + to_json_value(state.data.preprocessing).dump() + "\n");
  if (!s.problem.empty()) print("problem: " + s.problem + "\n");
}

}  // namespace

Result<DataSettings> read_data_file(const std::string& path) {
  QUANVAS_TRY(const auto text, read_file(path, std::uint64_t{64} << 20));
  QUANVAS_TRY(const YamlText document, parse_yaml(text, path, "data declaration"));
  auto settings = from_json_value<DataSettings>(document.value);
  if (!settings) return document.failure(settings.error());
  std::error_code ec;
  const fs::path base = fs::absolute(path, ec).parent_path();
  for (DataSource* source : {&settings->calibrate, &settings->train, &settings->evaluate})
    if (source->options.is_object()) make_absolute(source->options, base);
  return *settings;
}

Status data(Work& work) {
  const Options& o = work.options;
  DataSettings settings = work.bench->state().data;
  if (!o.data_file.empty()) {
    QUANVAS_TRY(settings, read_data_file(o.data_file));
  }
  if (!o.data_name.empty()) settings.name = o.data_name;
  if (!o.reader.empty()) {
    if (o.splits.empty())
      return fail(ErrorCode::kInvalidArgument, "--reader is given without --split.",
                  "Say what the samples are for: --split calibrate,train or --split evaluate.");
    QUANVAS_TRY(const DataSource source, source_of(o));
    for (const auto& split : o.splits)
      (split == "calibrate" ? settings.calibrate : split == "train" ? settings.train : settings.evaluate) = source;
  }
  apply_preprocessing(o, settings.preprocessing);
  ProjectState state = work.bench->state();
  if (!(settings == state.data)) {
    if (const Status readable = work.bench->check_data(settings); !readable && !o.force)
      return fail(readable.error().code, readable.error().message,
                  "Nothing was stored; --force declares it all the same.");
    QUANVAS_TRY(state, work.bench->set_data(settings));
  }
  if (o.json)
    print_json({{"data", to_json_value(state.data)}, {"status", to_json_value(state.data_status)}});
  else
    print_data(state);
  return {};
}

}  // namespace quanvas::cli
