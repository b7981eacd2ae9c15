# Quanvas - what packaging/run and packaging/test share: packages, BLAS, build. Sourced, with set -eu.

root=$(cd "$(dirname "$0")/.." && pwd)
build="$root/build/release"
interop="$root/build/interop"

say() { printf '==> %s\n' "$*"; }
die() {
  printf 'quanvas: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    command -v sudo > /dev/null 2>&1 || die "packages must be installed, which needs root: run this as root or install sudo. Wanted: $*"
    sudo "$@"
  fi
}

installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

# missing_packages NEED...: the packages of these needs that are not installed.
missing_packages() {
  while read -r need package; do
    case " $* " in
      *" $need "*) installed "$package" || printf '%s ' "$package" ;;
    esac
  done < "$root/packaging/debian-packages.txt"
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_packages() {
  if ! command -v apt-get > /dev/null 2>&1 || ! command -v dpkg-query > /dev/null 2>&1; then
    die "this script needs Debian 12 or a system with its packages; README.md says how to build elsewhere"
  fi
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  say "Installing: $missing"
  # The list of packages may be older than the archive: once more after an update.
  # shellcheck disable=SC2086
  apt_install $missing || {
    as_root apt-get update -q
    # shellcheck disable=SC2086
    apt_install $missing
  }
}

install_node() {
  if ! command -v node > /dev/null 2>&1; then apt_install nodejs || { as_root apt-get update -q && apt_install nodejs; }; fi
  if ! command -v npm > /dev/null 2>&1; then apt_install npm || { as_root apt-get update -q && apt_install npm; }; fi
}

# OpenBLAS with OpenMP shares its threads with LibTorch and is the fastest of Debian's. A choice that somebody
# made by hand stays.
select_blas() {
  command -v update-alternatives > /dev/null 2>&1 || return 0
  arch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2> /dev/null || echo "$(uname -m)-linux-gnu")
  for library in libblas.so.3 liblapack.so.3; do
    name="$library-$arch"
    wanted="/usr/lib/$arch/openblas-openmp/$library"
    state=$(update-alternatives --query "$name" 2> /dev/null) || continue
    printf '%s\n' "$state" | grep -q "^Alternative: $wanted\$" || continue
    printf '%s\n' "$state" | grep -q "^Value: $wanted\$" && continue
    if printf '%s\n' "$state" | grep -q '^Status: manual'; then
      say "$name was chosen by hand and stays; OpenBLAS with OpenMP would be $wanted"
    else
      say "Selecting OpenBLAS with OpenMP for $name"
      as_root update-alternatives --set "$name" "$wanted"
    fi
  done
}

# build_quanvas TESTS(ON|OFF)
build_quanvas() {
  say "Configuring and building in ${build#"$root"/} (the first build takes some minutes)"
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQUANVAS_TESTS="$1" > "$root/build/configure.log" 2>&1 || {
    cat "$root/build/configure.log" >&2
    die "configuring failed"
  }
  cmake --build "$build" --parallel "$(nproc)"
}

# Readers of the exported files that only tests need; the packages are pinned by tests/interop/package-lock.json.
install_interop() {
  mkdir -p "$interop"
  if [ -d "$interop/node_modules/onnxruntime-node" ] && cmp -s "$root/tests/interop/package-lock.json" "$interop/package-lock.json"; then
    return 0
  fi
  say "Installing onnxruntime-node and llama.cpp in ${interop#"$root"/} (tests only)"
  cp "$root/tests/interop/package.json" "$root/tests/interop/package-lock.json" "$root/tests/interop/.npmrc" "$interop/"
  # Without the install scripts: they fetch parts that are not needed here.
  (cd "$interop" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || {
    rm -rf "$interop/node_modules"
    say "onnxruntime-node could not be installed; the tests that need it will be skipped"
  }
}
