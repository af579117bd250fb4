# What a device says of itself, one `name=value` a line; what cannot be read is left out. It names neither the host nor a
# user. `root` is where /proc and /sys are, / but for tests.
show() { # name, file: its first line
  [ -r "$root$2" ] && IFS= read -r line <"$root$2" && echo "$1=$line"
}
echo "machine=$(uname -m)"
echo "kernel=$(uname -s) $(uname -r)"
model=$root/sys/firmware/devicetree/base/model
[ -r "$model" ] && echo "board=$(tr -d '\000' <"$model")" # ends in a NUL
show board_name /sys/devices/virtual/dmi/id/product_name
while IFS= read -r line; do
  case $line in
    'model name'*|'Model name'*) echo "cpu_name=${line#*: }" ;;
    'Hardware'*) echo "cpu_hardware=${line#*: }" ;;
    'CPU implementer'*) implementer=${line#*: } ;;
    'CPU part'*) echo "cpu_part=$implementer ${line#*: }" ;;
    'Features'*) echo "features=${line#*: }" ;;
  esac
done <"$root/proc/cpuinfo"
echo "cores=$(getconf _NPROCESSORS_ONLN || nproc)"
while read -r name value unit; do
  case $name in MemTotal:) echo "memory_kib=$value" ;; MemAvailable:) echo "available_kib=$value" ;; esac
done <"$root/proc/meminfo"
show load /proc/loadavg
frequency=/sys/devices/system/cpu/cpu0/cpufreq
show governor $frequency/scaling_governor
show current_khz $frequency/scaling_cur_freq
show allowed_khz $frequency/scaling_max_freq
show most_khz $frequency/cpuinfo_max_freq
for zone in "$root"/sys/class/thermal/thermal_zone*; do
  zone=${zone#"$root"}
  [ -r "$root$zone/temp" ] && echo "zone=$(cat "$root$zone/temp") $(cat "$root$zone/type")"
done
for cooler in "$root"/sys/class/thermal/cooling_device*; do
  cooler=${cooler#"$root"}
  [ -r "$root$cooler/cur_state" ] && echo "cooler=$(cat "$root$cooler/cur_state") $(cat "$root$cooler/type")"
done
command -v vcgencmd >/dev/null && echo "firmware_$(vcgencmd get_throttled)"
true
