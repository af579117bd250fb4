# Runs on the device for as long as edgeprune is connected, and holds the temporary folder: it makes the folder, and
# removes it with everything that still runs in it when its input ends. The input ends when edgeprune is done, when it is
# killed, and when the connection breaks. A cable that is pulled ends nothing: for that there is a line to read every few
# seconds, and `limit` seconds (twice that at most) without one count as the end, too.
# Plain POSIX sh with few tools: it has to run in dash, bash and busybox. ssh.py puts `limit` before it.
umask 077
folder=

for tool in mktemp rm cat chmod sleep uname; do
  command -v "$tool" >/dev/null 2>&1 || { echo "missing $tool"; exit 3; }
done

# Whoever works in the folder is ours: nothing else knows its name. Asked twice, for a process may write while we remove.
remove() {
  case $folder in */edgeprune.??????) ;; *) return ;; esac
  for attempt in 1 2; do
    for process in /proc/[0-9]*; do
      [ "$process/cwd" -ef "$folder" ] && kill -KILL "${process#/proc/}"
    done
    rm -rf "$folder" && return
    sleep 1
  done 2>/dev/null
}

finish() {
  trap - EXIT
  trap '' HUP INT TERM PIPE
  [ -n "$watcher" ] && kill "$watcher" 2>/dev/null
  remove
  [ -e "$folder" ] || echo gone
  exit 0
}
watcher=
trap finish EXIT HUP INT TERM PIPE

# A folder in which a program may be executed: /tmp is often mounted without that. TMPDIR is the user's own word.
reasons=
try_base() {
  made=$(mktemp -d "$1/edgeprune.XXXXXX" 2>&1) || { reasons="$reasons; $made"; return 1; }
  folder=$made
  if ! (printf '#!/bin/sh\nexit 0\n' >"$folder/try") 2>/dev/null; then
    reasons="$reasons; nothing can be written into $1: the disk is full"
  elif chmod 700 "$folder/try" && "$folder/try" 2>/dev/null; then
    rm -f "$folder/try"
    return 0
  else
    reasons="$reasons; no program can be executed in $1 (mounted noexec)"
  fi
  remove
  folder=
  return 1
}
if [ -n "$TMPDIR" ]; then
  try_base "$TMPDIR"
else
  try_base /tmp || try_base /var/tmp || try_base "$HOME"
fi
if [ -z "$folder" ]; then
  trap - EXIT
  echo "nowhere ${reasons#; }"
  exit 4
fi

(
  trap 'kill "$nap" 2>/dev/null; exit 0' TERM
  trap 'heard=1' USR1
  heard=1
  while [ "$heard" = 1 ]; do
    heard=0
    sleep "$limit" &
    nap=$!
    while kill -0 "$nap" 2>/dev/null; do wait "$nap"; done
  done
  remove
  kill -KILL $$
) </dev/null >/dev/null 2>&1 &
watcher=$!

echo "ready $(uname -m) $folder"
while IFS= read -r line; do
  kill -USR1 "$watcher" 2>/dev/null
done
finish
