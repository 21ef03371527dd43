# What the scripts beside this file share. Sourced by them; leaves the shell in the checkout's folder.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
SYSTEM_CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
# The mail server of the tests, of endure and of the bench.
# shellcheck disable=SC2034
MAIL_SERVER=(dovecot-imapd dovecot-pop3d dovecot-submissiond)

say() { printf '%s\n' "$*" >&2; }
fail() { say "$0: $*"; exit 1; }

may_install() { [[ $EUID -eq 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; }

# Installs those of the Debian packages named that are missing, and starts none of their services.
install_packages() {
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return 0
  say "Installing ${missing[*]}"
  (
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then  # 101: "action forbidden by policy", so that no mail server starts here
      trap 'rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
    fi
    apt-get -q -o DPkg::Lock::Timeout=300 update >&2
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >&2
  )
}

# Prints the first Python of 3.11 or later; $PYTHON goes first where it is set.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.{14,13,12,11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  fail "no Python of 3.11 or later was found; install one, or name it: PYTHON=/path/to/python $0"
}

# use_venv EXTRA: brings the virtual environment up to date, with emailproxy and the extra ("" for none)
# installed. It is left alone while pyproject.toml, the Python and the checkout's folder are the same.
use_venv() {
  local extra=$1 python home wanted
  if may_install && ! (find_python) >/dev/null 2>&1; then install_packages python3; fi
  python=$(find_python)
  home=$({ "$python" -VV; pwd; } | sha256sum)
  wanted=$(sha256sum pyproject.toml)
  if ! stamped venv "$home" || ! "$VENV/bin/python" -c '' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      may_install || fail "$python cannot make virtual environments; install python3-venv"
      install_packages python3-venv
    fi
    "$python" -m venv --clear "$VENV"
    echo "$home" >"$VENV/stamp-venv"
  fi
  if ! stamped "${extra:-base}" "$wanted"; then
    say "Installing emailproxy${extra:+ and what $extra needs} into $VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"
    echo "$wanted" >"$VENV/stamp-${extra:-base}"
  fi
}

# use_node: brings .venv/node up to date, with what the tests' OpenID provider needs from npm, and npm's own Node.js
# where the system's is too old for it. It is left alone while package.json and the system's Node.js are the same.
use_node() {
  local source=tests/e2e/harness/oidc/package.json folder=$VENV/node arguments=(--ignore-scripts) wanted
  if ! { command -v node && command -v npm; } >/dev/null; then
    say "There is no Node.js with npm here: tests that need oidc-provider are left out, and listed as SKIPPED."
    return
  fi
  wanted=$({ node --version; cat "$source"; } | sha256sum)
  stamped node "$wanted" && return
  say "Installing the OpenID provider of the tests into $folder"
  # Debian 12 has Node.js 18. The package `node` puts the program in its place by a script.
  node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' || arguments=(--ignore-scripts=false 'node@^24')
  rm -rf "$folder"
  mkdir "$folder"
  cp "$source" "$folder"
  # Node.js brings certificates of its own; an administrator's are in the system's.
  [[ ! -e $SYSTEM_CERTIFICATES ]] || export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$SYSTEM_CERTIFICATES}
  if npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --no-update-notifier \
    --loglevel=error "${arguments[@]}" >&2; then
    echo "$wanted" >"$VENV/stamp-node"
  else
    say "npm could not install it: tests that need oidc-provider are left out, and listed as SKIPPED."
  fi
}

# use_other_proxy: brings .venv/other up to date, with the proxy that PyPI has under our name: tests read what it writes.
use_other_proxy() {
  local source=tests/e2e/harness/other-proxy.txt folder=$VENV/other wanted
  wanted=$({ "$VENV/bin/python" -VV; cat "$source"; } | sha256sum)
  stamped other "$wanted" && return
  say "Installing another proxy, whose files the tests read, into $folder"
  rm -rf "$folder"
  if "$VENV/bin/python" -m venv "$folder" \
    && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$source"; then
    mkdir -p "$VENV/programs"
    ln -sfn ../other/bin/emailproxy "$VENV/programs/other-proxy"
    echo "$wanted" >"$VENV/stamp-other"
  else
    say "It cannot be installed: tests that need other-proxy are left out, and listed as SKIPPED."
  fi
}

# stamped NAME VALUE: whether that step was last finished with that value.
stamped() { [[ -f $VENV/stamp-$1 && $(<"$VENV/stamp-$1") == "$2" ]]; }
