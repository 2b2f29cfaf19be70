#!/bin/sh
# Installs what an image holds into the environment VENV, one layer's worth at a time:
#   install.sh IMAGE torch|libraries
# IMAGE is gateway, worker-cpu or worker-cuda. Run from a copy of the repository. TORCH_INDEX: where
# torch comes from, if not from pip's own index, whose build for Linux brings CUDA.
set -eu

image=$1
part=$2
VENV=${VENV:-/opt/venv}
PYTHON=${PYTHON:-python3}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
# Nothing is compiled ahead, and nothing kept beside: layers stay as small as the packages.
install() { "$VENV/bin/python" -m pip install --quiet --no-cache-dir --no-compile "$@"; }

case $part in
torch)
  wanted=$("$VENV/bin/python" scripts/containers/requirements.py torch)
  if [ -n "${TORCH_INDEX:-}" ]; then
    install --index-url "$TORCH_INDEX" "$wanted"
  else
    install "$wanted"
  fi
  ;;
libraries)
  # A lock is complete, but for torch, which its own layer has brought: nothing else is looked for.
  install --no-deps --require-hashes -r "config/locks/$image.txt"
  ;;
*)
  echo "install.sh: $part is neither torch nor libraries" >&2
  exit 2
  ;;
esac
