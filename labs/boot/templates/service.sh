# What every service of the lab does: sourced by its LSB script, run by its systemd unit, with name, kind, cost and action set.
# It marks its begin and its end on the second serial port, where the host stamps them: WORD NAME BOOT_CLOCK_S [CPU_TICKS WORK].
# Everything here is built into the shell but sleep, because starting a program costs an emulated guest more than all of this.
exec 3>/dev/ttyS1

mark() {
    read -r clock _ </proc/uptime
    echo "$1 $name $clock $2" >&3
}

# The CPU time that this process has used, in hundredths of a second: utime and stime (fields 14 and 15) of its stat file.
count_ticks() {
    read -r stat </proc/self/stat
    set -- ${stat#*) }
    ticks=$((${12} + ${13}))
}

case $action in
start)
    mark begin
    count_ticks
    before=$ticks work=0
    case $kind in
    sleep) sleep "$cost" ;;
    burn)
        # So much CPU time, not so much time: what else runs meanwhile makes it longer, not cheaper. The rounds tell how much was done in it.
        while [ $((ticks - before)) -lt "$cost" ]; do
            i=0
            while [ $i -lt 500 ]; do i=$((i + 1)); done
            work=$((work + 1))
            count_ticks
        done
        ;;
    ready) ;;
    esac
    count_ticks
    mark end "$((ticks - before)) $work"
    ;;
stop) mark stop ;;
esac
