/* Right: SIGCHLD is blocked but where poll waits, and after it everybody who has ended is reaped. */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 1000

static pid_t pid_of[MOST + 1];
static int started, running, failures;

static void heard(int number) { (void)number; }

static void start(const char *command)
{
    sigset_t none;
    pid_t pid = fork();
    if (pid == 0) {
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    pid_of[++started] = pid;
    running++;
}

static void reap(void)
{
    int raw, number;
    pid_t pid;
    while ((pid = waitpid(-1, &raw, WNOHANG)) > 0)
        for (number = 1; number <= started; number++)
            if (pid_of[number] == pid) {
                int status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
                pid_of[number] = 0;
                running--;
                failures += status != 0;
                printf("%d %d\n", number, status);
                fflush(stdout);
            }
}

int main(void)
{
    static char buffer[1 << 16];
    size_t filled = 0;
    int open = 1;
    sigset_t blocked, during;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = heard;
    sigaction(SIGCHLD, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &during);
    sigdelset(&during, SIGCHLD);
    while (open || running) {
        struct pollfd input = {.fd = open ? 0 : -1, .events = POLLIN};
        int ready = ppoll(&input, 1, NULL, &during);
        reap();
        if (ready > 0) {
            ssize_t got = read(0, buffer + filled, sizeof buffer - 1 - filled);
            char *line = buffer, *end;
            if (got <= 0) {
                open = 0;
                continue;
            }
            filled += (size_t)got;
            buffer[filled] = '\0';
            while ((end = strchr(line, '\n')) != NULL) {
                *end = '\0';
                start(line);
                line = end + 1;
            }
            filled -= (size_t)(line - buffer);
            memmove(buffer, line, filled);
        }
    }
    reap();
    return failures ? 1 : 0;
}
