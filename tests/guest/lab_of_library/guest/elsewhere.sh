# Starts a Python in another directory.
cd /
exec python3 -c 'from vmlab_guest.say import say; say(elsewhere=True)'
