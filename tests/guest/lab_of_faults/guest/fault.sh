# Misbehaves as it is told.
case $1 in
nothing) exit 0 ;;
garbage) printf '\033[2J\377\376not json\n' ;;
list) echo '[1, 2]' ;;
nan) echo '{"x": NaN}' ;;
half) printf '{"x": 1' ;;
megabytes) head -c 50000000 /dev/zero | tr '\0' 'x' ;;
flood) exec yes '{"x": 1}' ;;
stderr) head -c 5000000 /dev/zero | tr '\0' 'e' >&2; echo '{"done": true}' ;;
crash) echo 'it hurts' >&2; exit 7 ;;
signal) kill -9 $$ ;;
hang) sleep 1000 ;;
stubborn)
  # It, a child and a grandchild that lost its parent and its session go on for ever, and hear no signal that can be ignored.
  trap '' TERM HUP INT
  sh -c 'setsid sh -c ": stubborn; while :; do sleep 0.2; done" & :' &
  sh -c ': stubborn; while :; do sleep 0.2; done' &
  echo '{"started": true}'
  while :; do sleep 0.2; done
  ;;
drop) kill -9 $PPID; sleep 1000 ;;
esac
