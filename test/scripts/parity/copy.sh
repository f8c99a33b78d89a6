# Files in and out of containers.
docker run -d --name c$X tools sleep 100
mkdir -p d/sub; echo one >d/f; echo two >d/sub/g; ln -s f d/l; echo lone >f; ln -s d dl; ln -s f fl; mkdir e
docker cp f c$X:/tmp; docker exec c$X cat /tmp/f
docker cp f c$X:/tmp/new; docker exec c$X cat /tmp/new
docker cp f c$X:/tmp/; docker cp f c$X:/nope/x
~docker cp f c$X:/nope/
docker cp d c$X:/tmp; docker exec c$X cat /tmp/d/sub/g
docker cp d c$X:/tmp/dn; docker exec c$X cat /tmp/dn/f
docker cp d/. c$X:/tmp/dn2; docker exec c$X ls /tmp/dn2
docker cp d/. c$X:/tmp/dn; docker exec c$X ls /tmp/dn
~docker cp d c$X:/tmp/f
docker cp d/ c$X:/tmp/sl; docker exec c$X ls /tmp/sl
docker cp d c$X:/tmp/sl/; docker exec c$X ls /tmp/sl
docker cp fl c$X:/tmp/fl; docker exec c$X ls /tmp
docker cp -L fl c$X:/tmp/flL; docker exec c$X cat /tmp/flL
docker cp dl c$X:/tmp/dlx; docker cp -L dl c$X:/tmp/dlL; docker exec c$X ls /tmp/dlL
docker cp dl/. c$X:/tmp/dldot; docker exec c$X ls /tmp/dldot
docker cp nope c$X:/tmp
docker cp f nope:/tmp
docker cp f c$X:relative; docker exec c$X cat /relative
docker cp -q f c$X:/tmp/q
docker cp -a f c$X:/tmp/arch; docker exec c$X cat /tmp/arch
tar -cf - d | docker cp - c$X:/tmp/e2; tar -cf - d | docker cp - c$X:/tmp; docker exec c$X ls /tmp/d
echo notar | docker cp - c$X:/tmp
tar -cf - d | docker cp - c$X:/tmp/f
# Out.
docker cp c$X:/tmp/f out1; cat out1
docker cp c$X:/tmp/f e; cat e/f
docker cp c$X:/tmp/f e/; docker cp c$X:/tmp/f nope/; docker cp c$X:/tmp/f nope/x
docker cp c$X:/tmp/d e; find e | sort
docker cp c$X:/tmp/d e/new; find e/new | sort
docker cp c$X:/tmp/d/. e/dot; find e/dot | sort
docker cp c$X:/tmp/d/. e; find e | sort
docker cp c$X:/tmp/d out1
docker cp c$X:/tmp/fl e/lnk; readlink e/lnk
docker cp -L c$X:/tmp/d/l e/lnkL; cat e/lnkL
docker cp c$X:/tmp/d - | tar -tf - | sort
docker cp c$X:/tmp/f - | tar -xOf -
docker cp c$X:/nope e; docker cp nope:/f e
docker cp c$X:/tmp/f/ e/trail
docker cp c$X:tmp/f e/rel; cat e/rel
docker cp c$X:/tmp/f .; cat f
docker cp c$X:/tmp/f ./out2; cat out2
docker cp -a c$X:/tmp/f e/own; stat -c %u:%g e/own
docker cp f f; docker cp c$X:/a c$X:/b; docker cp f
mkdir -m 700 perm; touch -d '2020-01-02 03:04:05' perm/t; chmod 4751 perm/t; docker cp perm c$X:/tmp/perm; docker cp c$X:/tmp/perm back; stat -c '%a %y' back back/t
mkdir ro && echo x >ro/f && chmod 500 ro && docker cp ro c$X:/tmp/ro && docker cp c$X:/tmp/ro roback; stat -c %a roback
touch 'with:colon'; docker cp ./with:colon c$X:/tmp/; docker exec c$X ls /tmp | grep colon
docker create --name st$X tools; docker cp f st$X:/etc/; docker cp st$X:/etc/f e/fromstopped; cat e/fromstopped
docker container cp f c$X:/tmp/grp
