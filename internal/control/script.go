package control

// downloadScript puts the executor into the start directory, unless the agent
// brought one. The token goes to curl through a pipe and to wget through a
// file that only the user can read, never onto a command line. There is no
// $(...) in it, because Pulumi's own runner is known to damage that.
const downloadScript = `set -e
if [ -n "${LONGSHORE_EXECUTOR:-}" ]; then
  echo "Using the executor that the agent brought: $LONGSHORE_EXECUTOR"
else
  machine=` + "`uname -m`" + `
  case "$machine" in
    x86_64|amd64) arch=amd64 ;;
    aarch64|arm64) arch=arm64 ;;
    *) echo "There is no executor for $machine machines, use an image for amd64 or arm64" >&2; exit 1 ;;
  esac
  url="$LONGSHORE_SERVICE_URL/api/deployments/executor?arch=$arch"
  echo "Downloading the executor from $url"
  if command -v curl >/dev/null 2>&1; then
    printf 'header = "Authorization: token %s"\n' "$LONGSHORE_JOB_TOKEN" |
      curl --config - --fail --silent --show-error --retry 5 --output pulumi-deploy-executor.gz "$url"
  elif command -v wget >/dev/null 2>&1; then
    if wget --help 2>&1 | grep -q BusyBox; then
      echo "The wget of this image cannot keep a token off its command line, add curl or GNU wget to the image" >&2
      exit 1
    fi
    (umask 077; printf 'header = Authorization: token %s\n' "$LONGSHORE_JOB_TOKEN" > .executor-wgetrc)
    WGETRC="$PWD/.executor-wgetrc" wget --no-verbose --tries=6 --output-document=pulumi-deploy-executor.gz "$url" ||
      { rm -f .executor-wgetrc; exit 1; }
    rm -f .executor-wgetrc
  else
    echo "The image has neither curl nor wget, add one of them to download the executor" >&2
    exit 1
  fi
  gunzip -c pulumi-deploy-executor.gz > pulumi-deploy-executor
  rm -f pulumi-deploy-executor.gz
  chmod 0755 pulumi-deploy-executor
fi
`
