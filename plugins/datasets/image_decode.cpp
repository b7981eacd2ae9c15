#include "plugins/datasets/image_decode.h"

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

namespace quanvas {
namespace {

constexpr std::uint64_t kMostPixels = std::uint64_t{1} << 27;
// A head costs nothing to write: what a file claims must fit its bytes before there is memory for it. Deflate makes at most
// 1032 bytes of one; of JPEG's blocks of 64 pixels each needs a bit, here with room for odd samplings and for arithmetic
// coding, and small pictures are not looked at so closely.
constexpr std::uint64_t kMostDeflated = 1032, kMostPixelsOfByte = 8192, kFewPixels = std::uint64_t{1} << 24;
constexpr int kMostScans = 100;  // each is a walk over all pixels, whatever its bytes; usual are at most 10

Failure broken(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + name + "' cannot be decoded: " + what + ".", "Replace the picture or take it out.");
}

bool too_large(std::uint64_t width, std::uint64_t height) {
  return width == 0 || height == 0 || width > kMostPixels / height;
}

std::string more_than(std::uint64_t width, std::uint64_t height, std::size_t bytes) {
  return "it has " + std::to_string(width) + "×" + std::to_string(height) + " pixels, more than " + std::to_string(bytes) +
         " bytes can hold";
}

// libjpeg reports by calling back; errors leave by longjmp, as C code below cannot be unwound.
struct JpegErrors {
  jpeg_error_mgr base;
  jpeg_progress_mgr progress;
  std::jmp_buf leave;
  char text[JMSG_LENGTH_MAX];
  bool ended_early;
};

void on_jpeg_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->text);
  std::longjmp(errors->leave, 1);
}

void on_jpeg_message(j_common_ptr info, int level) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) errors->ended_early = true;
}

void on_jpeg_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMostScans) return;
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  std::snprintf(errors->text, sizeof errors->text, "it has more than %d scans", kMostScans);
  std::longjmp(errors->leave, 1);
}

void cmyk_to_rgb(const std::uint8_t* cmyk, std::uint8_t* rgb, std::size_t pixels, bool inverted) {
  for (std::size_t i = 0; i < pixels; ++i) {
    const int k = inverted ? cmyk[4 * i + 3] : 255 - cmyk[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      const int ink = inverted ? cmyk[4 * i + c] : 255 - cmyk[4 * i + c];
      rgb[3 * i + c] = static_cast<std::uint8_t>((ink * k + 127) / 255);
    }
  }
}

// Objects with destructors live outside, so that longjmp skips none. Returns the error's text or null; `claim` is one that
// has no fixed words.
const char* run_jpeg(const std::string& bytes, DecodedImage& image, std::vector<std::uint8_t>& row,
                     jpeg_decompress_struct& info, JpegErrors& errors, std::string& claim) {
  if (setjmp(errors.leave)) return errors.text;
  jpeg_create_decompress(&info);
  info.progress = &errors.progress;
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  if (too_large(info.image_width, info.image_height)) return "it has no pixels or more than 134 million";
  const std::uint64_t pixels = std::uint64_t{info.image_width} * info.image_height;
  if (pixels > kFewPixels && pixels / kMostPixelsOfByte > bytes.size()) {
    claim = more_than(info.image_width, info.image_height, bytes.size());
    return claim.c_str();
  }
  const bool grey = info.jpeg_color_space == JCS_GRAYSCALE;
  const bool four = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = grey ? JCS_GRAYSCALE : four ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  image.height = info.output_height;
  image.width = info.output_width;
  image.channels = grey ? 1 : 3;
  const std::size_t stride = static_cast<std::size_t>(image.width * image.channels);
  image.pixels.resize(stride * static_cast<std::size_t>(image.height));
  row.resize(static_cast<std::size_t>(info.output_width) * static_cast<std::size_t>(info.output_components));
  while (info.output_scanline < info.output_height) {
    std::uint8_t* to = image.pixels.data() + stride * info.output_scanline;
    JSAMPROW line = four ? row.data() : to;
    jpeg_read_scanlines(&info, &line, 1);
    if (four) cmyk_to_rgb(row.data(), to, static_cast<std::size_t>(image.width), info.saw_Adobe_marker);
  }
  jpeg_finish_decompress(&info);
  return errors.ended_early ? "it ends before its last line, so it is truncated" : nullptr;
}

Result<DecodedImage> decode_jpeg(const std::string& bytes, const std::string& name) {
  DecodedImage image;
  std::vector<std::uint8_t> row;
  jpeg_decompress_struct info{};
  JpegErrors errors{};
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_jpeg_error;
  errors.base.emit_message = on_jpeg_message;
  errors.progress.progress_monitor = on_jpeg_progress;
  std::string claim;
  const char* problem = run_jpeg(bytes, image, row, info, errors, claim);
  jpeg_destroy_decompress(&info);
  if (problem) return broken(name, problem);
  return image;
}

struct PngInput {
  const std::string* bytes;
  std::size_t at;
  char text[200];
};

void read_png_bytes(png_structp png, png_bytep out, std::size_t count) {
  auto* input = static_cast<PngInput*>(png_get_io_ptr(png));
  if (count > input->bytes->size() - input->at) png_error(png, "it is truncated");
  std::memcpy(out, input->bytes->data() + input->at, count);
  input->at += count;
}

void on_png_error(png_structp png, png_const_charp text) {
  auto* input = static_cast<PngInput*>(png_get_error_ptr(png));
  std::snprintf(input->text, sizeof input->text, "%s", text);
  png_longjmp(png, 1);
}
void on_png_warning(png_structp, png_const_charp) {}

const char* run_png(png_structp png, png_infop info, PngInput& input, DecodedImage& image, std::vector<png_bytep>& rows,
                    std::string& claim) {
  if (setjmp(png_jmpbuf(png))) return input.text;
  png_set_read_fn(png, &input, read_png_bytes);
  png_read_info(png, info);
  const std::uint64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  if (too_large(width, height)) return "it has no pixels or more than 134 million";
  if (png_get_rowbytes(png, info) * height / kMostDeflated > input.bytes->size()) {
    claim = more_than(width, height, input.bytes->size());
    return claim.c_str();
  }
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  image.width = static_cast<std::int64_t>(width);
  image.height = static_cast<std::int64_t>(height);
  image.channels = png_get_channels(png, info);
  const std::size_t stride = png_get_rowbytes(png, info);
  if (stride != width * static_cast<std::uint64_t>(image.channels)) return "its pixels have an unknown layout";
  image.pixels.resize(stride * height);
  rows.resize(height);
  for (std::size_t y = 0; y < height; ++y) rows[y] = image.pixels.data() + y * stride;
  png_read_image(png, rows.data());
  png_read_end(png, nullptr);
  return nullptr;
}

Result<DecodedImage> decode_png(const std::string& bytes, const std::string& name) {
  DecodedImage image;
  std::vector<png_bytep> rows;
  PngInput input{&bytes, 0, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, on_png_error, on_png_warning);
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    return fail(ErrorCode::kOutOfMemory, "Not enough memory to decode '" + name + "'.");
  }
  std::string claim;
  const char* problem = run_png(png, info, input, image, rows, claim);
  png_destroy_read_struct(&png, &info, nullptr);
  if (problem) return broken(name, problem);
  return image;
}

}  // namespace

Result<DecodedImage> decode_image(const std::string& bytes, const std::string& name) {
  if (bytes.empty()) return broken(name, "it is empty");
  if (bytes.rfind("\xff\xd8\xff", 0) == 0) return decode_jpeg(bytes, name);
  if (bytes.rfind("\x89PNG\r\n\x1a\n", 0) == 0) return decode_png(bytes, name);
  return broken(name, "it is neither JPEG nor PNG");
}

}  // namespace quanvas
