#!/bin/sh
# Does what package scripts ask of deb-systemd-helper most, by a look at a file or two: the program takes 25 ms to start, and
# they start it more than a hundred times. Whatever is not plain, and every other way to ask, goes to the program itself.
#
# Spec: deb-systemd-helper(1); a unit's state file lists the links that its [Install] section asks for.

real=/usr/bin/deb-systemd-helper
slow() { exec "$real" "$@"; }

if [ -z "$DPKG_MAINTSCRIPT_PACKAGE" ] || [ -n "$DPKG_ROOT" ] || [ -n "$_DEB_SYSTEMD_HELPER_DEBUG" ]; then
    slow "$@"
fi
set -f
# With the caller's words kept for the program itself.
instance=system state=/var/lib/systemd/deb-systemd-helper quiet='' user='' action='' unit=''
user_state=/var/lib/systemd/deb-systemd-user-helper
for word; do
    case $word in
    --quiet) quiet=yes ;;
    --user) user=yes instance=user ;;
    -*) slow "$@" ;;
    *) if [ -z "$action" ]; then action=$word; elif [ -z "$unit" ]; then unit=$word; else slow "$@"; fi ;;
    esac
done
case $unit in '' | */* | *@* | *[[:cntrl:][:space:]]*) slow "$@" ;; esac
masked_state=$state-masked user_masked_state=$user_state-masked
if [ -n "$user" ]; then state=$user_state; fi
enabled=$state-enabled
record=$enabled/$unit.dsh-also

# Sets `links` to what the unit's [Install] section asks for, a link a line; fails where that is not plain.
read_links() {
    links='' wanted=''
    for file in "/etc/systemd/$instance/$unit" "/lib/systemd/$instance/$unit" "/usr/lib/systemd/$instance/$unit" ''; do
        if [ -f "$file" ]; then break; fi
    done
    if [ -z "$file" ] || [ ! -r "$file" ]; then return 1; fi
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        *[Ww][Aa][Nn][Tt][Ee][Dd][Bb][Yy]=* | *[Rr][Ee][Qq][Uu][Ii][Rr][Ee][Dd][Bb][Yy]=* | *[Aa][Ll][Ii][Aa][Ss]=*) ;;
        *[Aa][Ll][Ss][Oo]=* | *[Dd][Ee][Ff][Aa][Uu][Ll][Tt][Ii][Nn][Ss][Tt][Aa][Nn][Cc][Ee]=*) return 1 ;;
        *) continue ;;
        esac
        names=${line#*=}
        case $names in '' | ' '* | *[!a-zA-Z0-9:._\\\ -]*) return 1 ;; esac
        case $line in
        WantedBy=*) kind=.wants ;;
        RequiredBy=*) kind=.requires ;;
        Alias=*' '*) return 1 ;;
        Alias=*)
            if [ "$names" != "$unit" ]; then links="$links/etc/systemd/$instance/$names$newline"; fi
            continue ;;
        *) return 1 ;;
        esac
        for name in $names; do wanted="$wanted/etc/systemd/$instance/$name$kind/$unit$newline"; done
    done < "$file"
    links=$links$wanted
}

make_directory() {
    if [ ! -d "$1" ]; then mkdir -p "$1"; fi
}

recorded='' newline='
'
case "$quiet $action" in
" unmask")
    # Only what it has masked itself is unmasked.
    if [ ! -e "$masked_state" ] && [ ! -e "$user_masked_state" ]; then exit 0; fi ;;
" debian-installed")
    if [ -f "$record" ]; then exit 0; else exit 1; fi ;;
"yes was-enabled")
    if [ ! -f "$record" ]; then exit 0; fi
    while read -r link; do
        if [ ! -L "$link" ]; then exit 1; fi
    done < "$record"
    exit 0 ;;
" enable" | " update-state")
    # Releases that made the links themselves are left alone, and those who want other modes.
    if [ "$(umask)" != 0022 ] || [ ! -x /usr/bin/systemctl ] || ! grep -q preset-mode=enable-only "$real" || ! read_links; then
        slow "$@"
    fi
    if [ "$action" = update-state ]; then
        make_directory "$enabled"
        printf %s "$links" > "$record"
        exit 0
    fi
    if [ -e "$record" ]; then slow "$@"; fi
    scope=--system
    if [ -n "$user" ]; then scope=--global; fi
    systemctl --root=/ "$scope" --preset-mode=enable-only preset "$unit" || slow "$@"
    IFS=$newline
    for link in $links; do
        made=$enabled/${link#"/etc/systemd/$instance/"}
        make_directory "${made%/*}"
        case "$newline$recorded" in
        *"$newline$link$newline"*) ;;
        *) recorded=$recorded$link$newline ;;
        esac
        : >> "$made"
    done
    if [ -n "$recorded" ]; then printf %s "$recorded" > "$record"; fi
    exit 0 ;;
esac
slow "$@"
